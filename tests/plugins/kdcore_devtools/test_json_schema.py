"""The JSON Schema of recipes: what editors complete and check by."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from json_schema_errors import errors

from kdcore.plugin.manager import PluginManager, plugin_manager
from kdcore.recipe.load import find_recipe, list_recipes, load_recipe
from kdcore_devtools.json_schema import recipe_schema

ENTRIES = [entry for entry in plugin_manager().registry.entries() if entry.kind != "modality"]


@pytest.fixture(scope="module")
def schema():
    return json.loads(json.dumps(recipe_schema()))


@pytest.fixture
def quickstart() -> dict[str, Any]:
    return yaml.safe_load(find_recipe("quickstart").read_text())


def references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from [schema["$ref"]] if isinstance(schema.get("$ref"), str) else []
        for each in schema.values():
            yield from references(each)
    elif isinstance(schema, list):
        for each in schema:
            yield from references(each)


def test_every_reference_leads_somewhere(schema):
    names = {"#/$defs/" + name.replace("/", "~1") for name in schema["$defs"]}
    assert set(references(schema)) <= names


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.kind}-{entry.qualified}")
def test_every_option_of_every_component_is_in_it(schema, entry):
    from kdcore.plugin.option_schema import describe

    variant = schema["$defs"][f"{entry.kind}/{entry.qualified}"]
    explained = {name: each.get("description") for name, each in variant["properties"].items()}
    for option in describe(entry).options:
        if "." in option.name:  # a field of an option
            continue
        assert option.name in explained
        assert (option.name in variant["required"]) == option.required


@pytest.mark.parametrize("name", list_recipes())
def test_shipped_recipes_pass(schema, name):
    assert not errors(schema, yaml.safe_load(find_recipe(name).read_text()))


@pytest.mark.parametrize("name", list_recipes())
def test_filled_recipes_pass(schema, name):
    assert not errors(schema, load_recipe(name).filled())


MISTAKES = {
    "losses.1": lambda recipe: recipe["losses"][1].update(temprature=3),
    "losses.1.temperature": lambda recipe: recipe["losses"][1].update(temperature="hot"),
    "losses.1.weight": lambda recipe: recipe["losses"][1].update(weight={"start": 0}),
    "losses.2": lambda recipe: recipe["losses"].append("soft-targets"),
    "student.encoder": lambda recipe: recipe["student"]["encoder"].update(widht=3),
    "student.encoder.width": lambda recipe: recipe["student"]["encoder"].update(width=0),
    "student.encoder.name": lambda recipe: recipe["student"]["encoder"].update(name="cnn1dd"),
    "student.transforms.3": lambda recipe: recipe["student"]["transforms"].append("resamplee"),
    "student": lambda recipe: recipe["student"].pop("modality"),
    "teachers.skeleton": lambda recipe: recipe["teachers"]["skeleton"].update(encoders="cnn1d"),
    "schedule.teachers": lambda recipe: recipe["schedule"]["teachers"].update(epoch=3),
    "data.protocol": lambda recipe: recipe["data"].update(protocol="cross-subjects"),
    "plugins.0": lambda recipe: recipe.update(plugins=["no-such-plugin"]),
    "": lambda recipe: recipe.pop("data"),
}


@pytest.mark.parametrize("path", MISTAKES)
def test_a_mistake_is_found_where_it_is(schema, quickstart, path):
    assert not errors(schema, quickstart)
    MISTAKES[path](quickstart)
    assert any(each == path for each in errors(schema, quickstart))


OVERLAYS = {
    "text": "{extends: quickstart, name: x}",
    "merged": "{extends: [quickstart], student: {encoder: {width: 16}}, seeds: [0], fusion: null}",
    "losses": "{extends: a.yaml, losses: {soft-target: {temperature: 8}, cross-entropy: null, dkd: {weight: 0.5}}}",
    "term": "{extends: a.yaml, losses: {late: {name: dkd, weight: {start: 0, stop: 1, epochs: 3}}}}",
    "renamed": "{extends: a.yaml, losses: {soft-target: {name: dkd, alpha: 2}, cross-entropy: dkd}}",
    "own terms": "{extends: a.yaml, student: {losses: {soft-target: {temperature: 8}, late: {name: dkd}}}}",
    "replaced": "{extends: a.yaml, losses: [cross-entropy], teachers: {skeleton: null}}",
    "files": "{extends: a.yaml, plugins: [losses, sub/my_loss.py]}",
}


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_is_laid_over_another_recipe_need_not_be_complete(schema, name):
    assert not errors(schema, yaml.safe_load(OVERLAYS[name]))


@pytest.mark.parametrize(
    "text",
    [
        "{extends: quickstart, losses: {soft-target: {temprature: 8}}}",
        "{extends: quickstart, losses: {soft-target: {temperature: hot}}}",
        "{extends: quickstart, losses: {late: {weight: heavy}}}",
        "{extends: quickstart, losses: {late: {name: dkd, weight: heavy}}}",
        "{extends: quickstart, student: {encoder: {widht: 8}}}",
        "{extends: quickstart, student: {losses: {soft-target: {temprature: 8}}}}",
        "{extends: quickstart, student: {encoder: {name: lstm, widht: 8}}}",
        "{extends: quickstart, seed: [0]}",
        "{extends: 3}",
    ],
)
def test_mistakes_in_it_are_found_all_the_same(schema, text):
    assert errors(schema, yaml.safe_load(text))


def test_options_stand_in_the_order_of_their_losses(schema):
    losses = [each for name, each in schema["$defs"].items() if name.startswith("loss/")]
    in_order = dict.fromkeys(key for each in losses for key in each["properties"] if key != "name")
    assert list(schema["$defs"]["overlay/loss"]["else"]["else"]["properties"]) == list(in_order)


def test_participants_like_others_and_copies_pass(schema, quickstart):
    quickstart["teachers"]["other"] = {"like": "skeleton", "encoder": {"width": 8}}
    quickstart["student"] |= {"copies": 2, "taps": ["pool"]}
    assert not errors(schema, quickstart)
    quickstart["teachers"]["other"]["encoder"] = {"widht": 8}
    assert errors(schema, quickstart)


@pytest.mark.parametrize("teacher", [{"follows": "student", "momentum": 0.9}, {"outputs": "logits.parquet"}])
def test_a_teacher_without_a_network_passes(schema, quickstart, teacher):
    quickstart["teachers"]["other"] = teacher
    assert not errors(schema, quickstart)
    quickstart["teachers"]["other"] = {"follows": None, "outputs": None}
    assert errors(schema, quickstart) == ["teachers.other"] * 2


def test_a_plugin_in_a_file_is_in_it_too(tmp_path: Path, quickstart):
    file = tmp_path / "schema_gap.py"
    file.write_text(
        "from kdcore import DistillationLoss, hookimpl\n\n"
        "class Gap(DistillationLoss):\n    def __init__(self, *, power: int = 2): super().__init__()\n\n"
        "@hookimpl\ndef register_losses(register): register('gap', 'schema_gap:Gap')\n"
    )
    manager = PluginManager()
    manager.add_file(file)
    schema = recipe_schema(manager)
    wrong = deepcopy(quickstart)
    quickstart["losses"].append({"name": "gap", "power": 3})
    wrong["losses"].append({"name": "gap", "powr": 3})
    assert not errors(schema, quickstart)
    assert errors(schema, wrong) == ["losses.2"]
