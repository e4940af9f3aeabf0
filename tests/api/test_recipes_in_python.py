"""Recipes as dictionaries and as objects: what a file says, and the same errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from python_recipes import CNN, tree
from torch import nn

import kdcore
from kdcore import RecipeError, Training, UsageError
from kdcore.plugin.manager import plugin_manager
from kdcore.recipe.shipped import find_recipe

WRONG = [
    {"losses": ["cross-entropy", {"name": "soft-target", "temprature": 2}]},
    {"losses": ["cross-entropyy"]},
    {"student": {"modality": "accelerometr", "encoder": CNN}},
    {"seeds": [0, 0], "data": {"dataset": "synthetic-motion", "protocol": "cross-subject", "batch_sise": 3}},
    {"losses": [], "training": {"epochs": 0}},
    {"teachers": {"body": {"modality": "skeleton", "encoder": CNN, "learns_from": ["nobody"]}}},
    {"training": {"optimizer": {"name": "sdg"}}},
]


def said(error: RecipeError) -> list[tuple[str, str, str]]:
    return [(each.path, each.message, each.hint) for each in error.problems]


@pytest.mark.parametrize("changes", WRONG, ids=lambda changes: "+".join(changes))
def test_a_dictionary_has_the_errors_of_a_file(changes, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(tree(**changes)))
    with pytest.raises(RecipeError) as from_file:
        kdcore.load_recipe(file)
    with pytest.raises(RecipeError) as from_values:
        kdcore.load_recipe(tree(**changes))
    assert sorted(said(from_values.value)) == sorted(said(from_file.value))
    assert "command line" not in str(from_values.value)


def test_an_error_has_path_and_suggestion():
    with pytest.raises(RecipeError) as found:
        kdcore.load_recipe(tree(**WRONG[0]))
    expected = "losses[1].temprature: the loss 'soft-target' has no option 'temprature' (did you mean 'temperature'?)"
    assert str(found.value) == expected


def test_a_dictionary_is_the_recipe_that_the_file_is(tmp_path):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tree()))
    assert kdcore.load_recipe(tree()).hash == kdcore.load_recipe(tmp_path / "recipe.yaml").hash
    shipped = yaml.safe_load(find_recipe("quickstart").read_text())
    assert kdcore.load_recipe(shipped).hash == kdcore.load_recipe("quickstart").hash


def test_a_dictionary_may_extend_a_recipe_and_be_overridden():
    recipe = kdcore.load_recipe({"extends": "quickstart", "name": "mine", "losses": {"dkd": {"weight": 0.5}}}, ["seeds=[7]"])
    assert (recipe.name, recipe.seeds, recipe.losses[-1].name) == ("mine", [7], "dkd")


def test_python_values_become_those_of_a_recipe(tmp_path):
    start = tmp_path / "start.safetensors"
    start.touch()
    values = tree(seeds=(0, np.int64(3)), training=Training(epochs=5))
    values["student"] = {**values["student"], "weights": start}
    recipe = kdcore.load_recipe(values)
    assert recipe.seeds == [0, 3]
    assert recipe.training.epochs == 5
    assert recipe.student is not None
    assert recipe.student.weights is not None
    assert recipe.student.weights.file == start


@pytest.mark.parametrize(
    ("encoder", "what"),
    [
        (nn.Linear(2, 2), "cannot hold the network Linear"),
        (lambda: nn.Linear(2, 2), "no name by which a recipe could find it"),
        (object(), "cannot hold a object"),
        ({"name": "cnn1d", "width": torch.zeros(3)}, "cannot hold a Tensor"),
    ],
)
def test_values_that_no_recipe_can_hold_are_refused_by_path(encoder, what):
    with pytest.raises(RecipeError, match=what) as found:
        kdcore.load_recipe(tree(student={"modality": "accelerometer", "encoder": encoder}))
    assert found.value.problems[0].path.startswith("student.encoder")


def test_a_recipe_constructed_in_code_is_checked_like_a_dictionary():
    with pytest.raises(RecipeError) as constructed:
        kdcore.Recipe(**tree(**WRONG[3]))
    with pytest.raises(RecipeError) as loaded:
        kdcore.load_recipe(tree(**WRONG[3]))
    assert said(constructed.value) == said(loaded.value)
    recipe = kdcore.Recipe(**tree(**WRONG[0]))  # whether components take their options is known with the plugins
    with pytest.raises(RecipeError, match="temprature"):
        kdcore.load_recipe(recipe)
    with pytest.raises(RecipeError, match="temprature"):
        kdcore.dry_run(recipe)
    assert kdcore.load_recipe(kdcore.Recipe(**tree())).hash == kdcore.load_recipe(tree()).hash


def test_a_loaded_recipe_keeps_its_places(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(tree()))
    with pytest.raises(RecipeError) as found:
        kdcore.load_recipe(kdcore.load_recipe(file), ["student.modality=gyroskope"])
    assert "gyroskope" in str(found.value)
    changed = kdcore.load_recipe(kdcore.load_recipe(file), ["seeds=[4]"])
    assert changed.seeds == [4]
    assert changed.locate("losses[1]") == kdcore.load_recipe(file).locate("losses[1]")


def test_a_recipe_that_names_a_python_object_cannot_be_run_without_it():
    with pytest.raises(RecipeError, match="an object that must be passed in Python"):
        kdcore.dry_run(tree(data={"dataset": "from-python", "protocol": "cross-subject"}))


def test_objects_of_the_registry_are_not_listed():
    names = {entry.name for entry in plugin_manager().registry.entries()}
    assert not any(":" in name or name == "from-python" for name in names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5,), "a recipe must be a name, a path, a dictionary or a kdcore.Recipe, not int"),
        (([tree()],), "not list"),
        (("quickstart", "seeds=[0]"), "overrides must be a list of strings"),
        (("quickstart", {"seeds": [0]}), "overrides must be a list of strings"),
        (("quickstart", [("seeds", 0)]), "overrides must be a list of strings"),
    ],
)
def test_arguments_of_other_types_are_refused(arguments, message):
    for function in (kdcore.load_recipe, kdcore.run, kdcore.dry_run):
        with pytest.raises(UsageError, match=message):
            function(*arguments)
