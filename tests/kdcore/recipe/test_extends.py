"""Recipes that extend others."""

import pytest

from kdcore.errors import RecipeError
from kdcore.recipe.load import load_recipe

BASE = "extends: recipe.yaml\n"


@pytest.fixture
def extend(write, valid, plugins):
    """Loads a recipe that extends the valid one."""

    def extend(text, *overrides):
        write(valid)
        return load_recipe(write(BASE + text, "child.yaml"), overrides, plugins)

    return extend


def test_mappings_merge_and_lists_are_replaced(extend):
    recipe = extend("name: child\nteachers: {acc: {encoder: {dropout: 0.1}}}\nseeds: [7]\nstudent: {taps: [a, layers.1]}\n")
    assert (recipe.name, recipe.seeds, recipe.tracking.experiment) == ("child", [7], "child")
    assert recipe.teachers["acc"].encoder.options == {"width": 8, "dropout": 0.1}
    assert recipe.teachers["gyro"].encoder.options == {"width": 8, "dropout": 0.1}
    assert recipe.student.taps == {"a": "a", "layers.1": "layers.1"}


def test_a_bare_name_below_takes_options(extend):
    assert extend("student: {encoder: {width: 2}}\n").student.encoder.flat() == {"name": "net", "width": 2}


def test_a_share_of_labels_replaces_the_word_below(load, valid, extend):
    assert load(valid, "data.labels=given", "data.labels.share=0.2").data.labels.share == 0.2
    assert extend("data: {labels: given}\n", "data.labels={share: 0.3}").data.labels.share == 0.3


def test_a_file_of_weights_below_takes_options(load, valid, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"")
    found = load(valid, f"student.weights={tmp_path}/a.safetensors", "student.weights.prefix=net.").student.weights
    assert (found.file.name, found.prefix) == ("a.safetensors", "net.")


def test_another_component_drops_the_options_below(extend):
    recipe = extend("teachers: {acc: {encoder: {name: fake/net, dropout: 0.1}}}\n")
    assert recipe.teachers["acc"].encoder.options == {"dropout": 0.1}


def test_null_takes_away_what_was_inherited(extend, load, valid):
    recipe = extend(
        "teachers: {gyro: null, acc: {taps: null, encoder: {dropout: null}}}\nlosses: [cross-entropy]\nseeds: null\n"
    )
    assert list(recipe.teachers) == ["acc"]
    assert recipe.teachers["acc"].taps == {}
    assert recipe.teachers["acc"].encoder.options == {"width": 8, "dropout": None}
    assert recipe.seeds == [0]
    assert load(valid, "teachers.gyro=null").teachers.keys() == {"acc"}


def test_losses_by_name(extend):
    recipe = extend(
        "losses: {soft-target: {weight: 0}, late: null, cross-entropy: {}, extra: {name: soft-target, weight: 2}}\n"
    )
    assert [(term.id, term.weight) for term in recipe.losses] == [("cross-entropy", 1.0), ("soft-target", 0.0), ("extra", 2.0)]
    assert not recipe.losses[1].active
    assert recipe.losses[1].options == {"temperature": 2}


def test_bases_in_order_and_a_diamond(write, valid, plugins):
    write(valid)
    write(BASE + "name: b\ndescription: b\n", "b.yaml")
    write(BASE + "name: c\n", "c.yaml")
    recipe = load_recipe(write("extends: [b.yaml, c.yaml]\n", "d.yaml"), (), plugins)
    assert (recipe.name, recipe.description) == ("c", "b")


def test_lines_of_the_file_that_said_it(extend, tmp_path):
    recipe = extend("losses:\n  soft-target:\n    weight: 0.25\n")
    assert recipe.locate("losses[1].weight") == (tmp_path / "child.yaml", 4)
    assert recipe.locate("losses[1].temperature") == (tmp_path / "recipe.yaml", 20)
    assert recipe.locate("seeds") == (tmp_path / "recipe.yaml", 23)


def test_problems_name_the_file_that_said_it(extend, write, valid, plugins, tmp_path):
    with pytest.raises(RecipeError) as caught:
        extend("losses: {soft-target: {temprature: 3}}\n")
    [found] = caught.value.problems
    assert (found.file, found.line, found.path) == (tmp_path / "child.yaml", 2, "losses[1].temprature")


def test_extending_what_is_not_there(write, valid, plugins, tmp_path):
    write(valid, "base.yaml")
    with pytest.raises(RecipeError) as caught:
        load_recipe(write("name: x\nextends: bse.yaml\n"), (), plugins)
    [found] = caught.value.problems
    assert (found.file, found.line, found.path) == (tmp_path / "recipe.yaml", 2, "extends")
    assert found.hint == "did you mean 'base.yaml'?"


def test_extending_in_a_circle(write, plugins):
    write("extends: b.yaml\n", "a.yaml")
    write("name: b\nextends: sub/c.yaml\n", "b.yaml")
    with pytest.raises(RecipeError) as caught:
        load_recipe(write("extends: ../a.yaml\n", "sub/c.yaml"), (), plugins)
    [found] = caught.value.problems
    assert found.message == "circular `extends:` reference: c.yaml → a.yaml → b.yaml → c.yaml"
    assert (found.file.name, found.line) == ("b.yaml", 2)


def test_extends_is_a_name_or_names(write, plugins):
    with pytest.raises(RecipeError, match=r"recipe\.yaml:1: extends: must be a path"):
        load_recipe(write("extends: {a: b}\n"), (), plugins)
