"""The provenance that decides if a finished run counts as a run of today's recipe."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
import yaml
from quick import QUICK
from runs import Home, tiny_recipe

from kdcore import Provenance, load_recipe, provenance_of, read_facts
from kdcore.plugin.manager import plugin_manager
from kdcore.recipe.named_files import file_hashes

NOW = Provenance("abc", {}, {"kdcore": "0.1.0", "plugin losses": "1.0"}, {"kdcore": "c0", "losses": "c1"})


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        ({}, None),
        ({"fingerprint": "xyz"}, "the recordings have changed (fingerprint xyz, now abc)"),
        ({"versions": {**NOW.versions, "kdcore": "0.0.9"}}, "kdcore was 0.0.9, now 0.1.0"),
        ({"versions": {**NOW.versions, "plugin losses": "0.9"}}, "plugin losses was 0.9, now 1.0"),
        ({"versions": {"kdcore": "0.1.0"}}, "plugin losses was not used, now 1.0"),
        ({"versions": {**NOW.versions, "plugin other": "3"}}, "plugin other was 3, now not used"),
        ({"code": {"kdcore": "c0", "losses": "edited"}}, "the code of plugin losses has changed"),
        ({"code": {"losses": "c1"}}, "the code of kdcore has changed"),
        ({"files": {"teachers.big.weights": "1"}}, "the file at teachers.big.weights has changed"),
    ],
)
def test_every_change_is_a_reason(then, reason):
    assert NOW.changes_since(replace(NOW, **then)) == ([reason] if reason else [])


def test_python_and_torch_do_not_count():
    assert not NOW.changes_since(replace(NOW, versions={**NOW.versions, "torch": "1.0", "python": "3.11.0"}))


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe(tmp_path / "mlflow.db", "tiny")))
    return str(path)


def test_a_run_records_what_would_be_its_provenance_now(tmp_path, monkeypatch):
    home = Home(tmp_path / "home", tmp_path / "mlflow.db").write(**QUICK, seeds=[0], baseline=False)
    assert home.run() == 0, home.said()
    monkeypatch.setenv("KDCORE_CACHE", home.environment["KDCORE_CACHE"])
    facts = read_facts(home.runs[0])
    assert facts
    assert provenance_of(load_recipe(str(home.recipe))).changes_since(facts) == []
    assert json.loads((home.runs[0] / "run.json").read_text())["code"].keys() >= {"kdcore", "datasets", "losses"}


def test_a_file_that_the_recipe_names_counts_by_its_content(tmp_path, recipe, monkeypatch):
    monkeypatch.setenv("KDCORE_CACHE", str(tmp_path / "cache"))
    weights = tmp_path / "weights.safetensors"
    overrides = [f"teachers.skeleton.weights={weights}"]
    found = []
    for content in (b"one", b"two"):
        weights.write_bytes(content)
        found.append(provenance_of(load_recipe(recipe, overrides)))
    assert found[1].changes_since(found[0]) == ["the file at teachers.skeleton.weights.file has changed"]
    assert found[0].digest != found[1].digest


def test_files_in_lists_and_folders_of_weights_count(tmp_path):
    file, folder = tmp_path / "a.txt", tmp_path / "shards"
    file.write_bytes(b"one")
    folder.mkdir()
    (folder / "1.bin").write_bytes(b"x")
    tree = {"files": ["none", str(file)], "teacher": {"weights": {"file": folder}}, "other": folder}
    found = file_hashes(tree)
    assert found.keys() == {"files.1", "teacher.weights.file"}
    assert hashlib.sha256(b"one").hexdigest().startswith(found["files.1"])
    (folder / "1.bin").write_bytes(b"y")
    edited = file_hashes(tree)
    (folder / "1.bin").rename(folder / "2.bin")
    assert len({each["teacher.weights.file"] for each in (found, edited, file_hashes(tree))}) == 3


def test_the_code_of_a_plugin_counts(tmp_path, recipe, monkeypatch):
    monkeypatch.setenv("KDCORE_CACHE", str(tmp_path / "cache"))
    module = tmp_path / "edited_losses.py"
    found = []
    for text in ("x = 1\n", "x = 2\n"):
        module.write_text(text)
        monkeypatch.setattr(type(plugin_manager().plugins["losses"]), "module", property(lambda self: "edited_losses"))
        monkeypatch.syspath_prepend(str(tmp_path))
        __import__("edited_losses")
        found.append(provenance_of(load_recipe(recipe)))
    assert "the code of plugin losses has changed" in found[1].changes_since(found[0])
    assert not [each for each in found[1].changes_since(found[0]) if "kdcore" in each]
