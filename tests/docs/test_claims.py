"""Statements in the documentation that depend on the code elsewhere."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields

import pytest
import yaml
from pages import CHECKOUT, blocks

import kdcore
from kdcore.contracts.training import LearningRate, Training
from kdcore.plugin.facts import component_facts
from kdcore.plugin.manager import found_plugins
from kdcore.plugin.registry import Entry
from kdcore.recipe.config_models import EngineSpec
from kdcore.recipe.data_models import DataSpec
from kdcore.recipe.models import ParticipantSpec, Recipe

PAIRS = {"pairs": [["a", "b"], ["c", "d"]]}
LEVELS = {"teacher_taps": ["low", "high"], "student_taps": ["low", "high"]}
REQUIRED = {"fsp": PAIRS, "reviewkd": PAIRS, "afd": LEVELS}
"""Loss → the options that it requires."""

NO_SETTINGS = {
    "KDCORE_API": "an attribute of plugin modules",
    "KDCORE_DATA": "the folder of the recordings that tests need; executors make its path absolute",
}
"""Names in the code that are not settings for users."""


def reads_teachers(entry: Entry) -> bool:
    needs = component_facts(entry, REQUIRED.get(entry.name, {})).needs
    return needs is not None and needs.teachers > 0


@pytest.mark.parametrize("page", ["README.md", "docs/comparison.md"])
def test_number_of_distillation_losses(page: str):
    losses = [entry for entry in found_plugins().registry.entries("loss") if entry.plugin == "losses"]
    number = sum(map(reads_teachers, losses))
    text = (CHECKOUT / page).read_text(encoding="utf-8")
    row = re.search(r"^\| distillation losses \| \[?more than (\d+)", text, re.MULTILINE)
    assert row, "the row of distillation losses has gone"
    assert int(row[1]) < number <= int(row[1]) + 10


def test_plugins_of_the_methods_provide_their_components():
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    rows = re.search(r"^\| method \| paper .*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert rows
    owners = {entry.name: entry.plugin for entry in found_plugins().registry.entries()}
    for row in rows[1].splitlines():
        names, plugins = (cell.strip() for cell in row.strip("| ").split("|")[3:])
        components = set(re.findall("`(.+?)`", names)) - ParticipantSpec.model_fields.keys()
        assert {owners[name] for name in components} == set(plugins.split(", ")), row


def keys_in(page: str, heading: str) -> set[str]:
    """The names in the first column of the tables of a section, up to the next heading of any level."""
    text = (CHECKOUT / "docs" / page).read_text(encoding="utf-8")
    section = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#)", text, re.MULTILINE | re.DOTALL)
    assert section, heading
    cells = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", section[1], re.MULTILINE)
    return set(re.findall(r"\w+", " ".join(cells)))


@pytest.mark.parametrize(
    ("page", "heading", "keys"),
    [
        ("recipes.md", "Keys of a recipe", {*Recipe.model_fields, "extends"}),
        ("recipes.md", "Participants", {*ParticipantSpec.model_fields, "like", "copies"}),
        ("recipes.md", "Training", {field.name for field in fields(Training)}),
        ("recipes.md", "Learning rate", {field.name for field in fields(LearningRate)} - {"name"}),
        ("recipes.md", "Engine", set(EngineSpec.model_fields)),
        ("data.md", "Keys of `data`", set(DataSpec.model_fields)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_key_is_in_its_table(page: str, heading: str, keys: set[str]):
    assert keys_in(page, heading) == keys


def names_in_code() -> Iterator[str]:
    """Every name of such a form that is a whole string in the shipped code."""
    for folder in ("kdcore", "plugins"):
        for file in (CHECKOUT / folder).rglob("*.py"):
            strings = [node.value for node in ast.walk(ast.parse(file.read_bytes())) if isinstance(node, ast.Constant)]
            yield from (text for text in strings if isinstance(text, str) and re.fullmatch("KDCORE(_[A-Z]+)+", text))


def test_every_variable_of_the_environment_is_in_the_table():
    rows = re.findall(r"^\| `(KDCORE_[A-Z_]+)", (CHECKOUT / "docs" / "cli.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(set(names_in_code()) - NO_SETTINGS.keys())


@pytest.mark.slow
def test_distillation_helps_with_the_recipe_of_the_readme(tmp_path, monkeypatch):
    """Fewer epochs and one seed: the teacher is better than the student, which gains at least 5 points."""
    monkeypatch.setenv("KDCORE_RUNS", str(tmp_path / "runs"))
    recipe = yaml.safe_load(next(each.text for each in blocks(CHECKOUT / "README.md") if each.language == "yaml"))
    database = f"tracking.uri=sqlite:///{tmp_path / 'mlflow.db'}"
    result = kdcore.run(recipe, ["seeds=[0]", "training.epochs=8", "engine.threads=1", database])
    assert result is not None
    accuracy = result.table.set_index("role")["accuracy"]
    assert accuracy["teacher"] > accuracy["distilled"] > accuracy["baseline"] + 0.05


def test_rows_of_results_in_the_readme_have_commands_of_valid_recipes(tmp_path):
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|.*\(.* to .*\).*\|$", text.partition("## Results")[2].partition("\n## ")[0], re.MULTILINE)
    assert len(rows) == 9
    for row in rows:
        command = re.search("`kdcore run (.+?)`", row)
        assert command, row
        recipe, *overrides = shlex.split(command[1])
        kdcore.load_recipe(recipe, [*overrides, f"data.dataset.root={tmp_path}"], files=False)
