"""Plugins that are a single file."""

from __future__ import annotations

import json
import os
import re
import shutil

import pytest
from runs import Home, tracked
from safetensors.torch import save_file

from kdcore.cli.main import _without_plugin_files
from kdcore.deploy.saved_student import load_student
from kdcore.errors import KdcoreError, PluginError, RecipeError
from kdcore.plugin import files
from kdcore.plugin.manager import PluginManager, found_plugins, plugin_manager
from kdcore.recipe.load import load_recipe

GAP = """
from typing import Literal

from kdcore import DistillationLoss, Needs, hookimpl


class Gap(DistillationLoss):
    \"\"\"Squared distance between logits.\"\"\"

    needs = Needs(teachers=1)

    def __init__(self, *, power: Literal[1, 2] = 2, broken: bool = False):
        super().__init__()
        self.power, self.broken = power, broken

    def forward(self, ctx):
        if self.broken:
            raise RuntimeError("the shapes do not meet")
        return sum((ctx.student.logits - each.logits).abs().pow(self.power).mean() for each in ctx.teachers.values())


@hookimpl
def register_losses(register):
    register("gap", "gap_loss:Gap")
"""

FAULTS = {
    "raises.py": ("\n\nx = undefined", "line 4: NameError: name 'undefined' is not defined"),
    "exits.py": ("raise SystemExit(3)", "SystemExit: 3"),
    "syntax.py": ("\ndef f(:", "line 3: SyntaxError"),
    "misspelt.py": ("@hookimpl\ndef register_loses(register): pass", "did you mean 'register_losses'?"),
    "hookless.py": ("x = 1", "implements no hook; decorate a function such as register_losses with kdcore.hookimpl"),
    "taken.py": (
        "class A: pass\n@hookimpl\ndef register_losses(register): register('soft-target', 'taken:A')",
        "the plugin 'losses' already provides the loss 'soft-target'; rename yours",
    ),
    "absent.py": (
        "@hookimpl\ndef register_losses(register): register('a', 'absent:A')",
        "loss 'a' (absent:A): could not load it: AttributeError",
    ),
    "losses.py": ("x = 1", "the plugin name 'losses' is already in use (kdcore"),
    "json.py": ("x = 1", "a module 'json' already exists; rename the file"),
    "my-loss.py": ("x = 1", "'my-loss.py' is not a valid module name; rename the file"),
    "nowhere.py": (None, "could not read it: No such file or directory"),
}


@pytest.fixture
def gap(workshop):
    """A file that holds a loss."""
    file = workshop.folder.parent / "gap_loss.py"
    file.write_text(GAP)
    return file


@pytest.mark.parametrize("name", FAULTS)
def test_a_file_that_cannot_be_used_gives_one_message_with_the_reason(workshop, name):
    code, reason = FAULTS[name]
    file = workshop.folder.parent / name
    if code is not None:
        workshop.write(file.stem, code).rename(file)
    manager = PluginManager()
    before = list(manager.registry.entries())
    with pytest.raises(PluginError, match=re.escape(f"plugin file {file}: ") + ".*" + re.escape(reason)):
        manager.add_file(file)
    assert list(manager.registry.entries()) == before
    assert [plugin.target for plugin in manager.broken] == [str(file)]


def test_a_file_is_taken_in_once_whichever_copy_of_it(gap, tmp_path):
    manager = PluginManager([])
    first = manager.add_file(gap)
    copy = tmp_path / "copies"
    copy.mkdir()
    assert manager.add_file(gap) is first
    assert manager.add_file(shutil.copy(gap, copy) and copy / gap.name) is first
    (copy / gap.name).write_text(GAP + "\n")
    with pytest.raises(PluginError, match=r"the plugin name 'gap-loss' is already in use \(.*gap_loss.py\)"):
        manager.add_file(copy / gap.name)
    assert manager.registry.get("loss", "gap").plugin == "gap-loss"


@pytest.mark.parametrize("edited", [False, True])
def test_a_copy_of_a_file_that_could_be_imported_is_the_same_plugin(tmp_path, monkeypatch, edited):
    """As in a notebook next to the file, which loads the recipe of a run with its copy of the file."""
    name = f"notebook_gap_{edited}".lower()
    for folder in ("here", "run"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.py").write_text(GAP.replace("gap_loss", name))
    if edited:
        (tmp_path / "here" / f"{name}.py").write_text("x = 1")
    monkeypatch.syspath_prepend(tmp_path / "here")
    manager = PluginManager([])
    if edited:
        with pytest.raises(PluginError, match=f"a module '{name}' already exists; rename the file"):
            manager.add_file(tmp_path / "run" / f"{name}.py")
    else:
        assert manager.add_file(tmp_path / "run" / f"{name}.py").target == str(tmp_path / "run" / f"{name}.py")


def test_its_version_is_what_it_holds(gap):
    version = PluginManager([]).add_file(gap).version
    assert re.fullmatch(r"file [0-9a-f]{12}", version)
    gap.write_text(GAP + "\n")
    assert f"file {files.fingerprint(gap)}" != version


def test_the_command_line_names_files_anywhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(files.VARIABLE, "")
    assert _without_plugin_files(["run", "--plugin", "a.py", "r.yaml", "--plugin=sub/b.py", "x=1"]) == ["run", "r.yaml", "x=1"]
    assert files.files_asked_for() == [tmp_path / "a.py", tmp_path / "sub/b.py"]


@pytest.mark.parametrize("words", [["list", "--plugin"], ["list", "--plugin", "cosine"], ["list", "--plugin="]])
def test_an_option_without_a_file_is_explained(words):
    with pytest.raises(KdcoreError, match="--plugin requires a Python file such as"):
        _without_plugin_files(words)


def test_the_environment_names_files(gap, workshop, monkeypatch):
    broken = workshop.write("hookless", "x = 1")
    monkeypatch.setenv(files.VARIABLE, os.pathsep.join([str(gap), str(broken)]))
    found_plugins.cache_clear()
    try:
        assert [plugin.name for plugin in found_plugins().broken] == ["hookless"]
        assert found_plugins().registry.get("loss", "gap").target == "gap_loss:Gap"
        with pytest.raises(PluginError, match="implements no hook"):
            plugin_manager()
    finally:
        found_plugins.cache_clear()


def recipe_of(folder, plugins="[gap_loss.py]", extra=""):
    text = f"extends: quickstart\nname: filed\nplugins: {plugins}\nlosses: {{gap: {{power: 1{extra}}}}}\n"
    (folder / "filed.yaml").write_text(text)
    return folder / "filed.yaml"


def test_a_recipe_names_files_beside_it(gap, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    recipe = load_recipe(recipe_of(tmp_path), (), PluginManager())
    assert recipe.plugins == [str(gap)]


def test_a_recipe_finds_the_file_of_the_recipe_that_it_extends(gap, tmp_path):
    recipe_of(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "more.yaml").write_text("extends: ../filed.yaml\nname: more\n")
    assert load_recipe(tmp_path / "sub" / "more.yaml", (), PluginManager()).plugins == [str(gap)]


def test_the_hash_knows_what_a_file_holds_not_where_it_is(gap, tmp_path):
    first = load_recipe(recipe_of(tmp_path), (), PluginManager()).hash
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(gap, elsewhere)
    assert load_recipe(recipe_of(elsewhere), (), PluginManager()).hash == first
    (elsewhere / gap.name).write_text(GAP.replace("Squared", "Some"))
    del __import__("sys").modules["gap_loss"]
    assert load_recipe(recipe_of(elsewhere), (), PluginManager()).hash != first


def test_a_broken_file_of_a_recipe_is_a_problem_with_its_line(workshop, tmp_path):
    workshop.write("gap_loss", "x = undefined").rename(tmp_path / "gap_loss.py")
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe_of(tmp_path), (), PluginManager())
    problem = next(each for each in caught.value.problems if each.path == "plugins[0]")
    assert problem.line == 3
    assert "gap_loss.py: line 2: NameError: name 'undefined' is not defined" in problem.message


def test_files_asked_for_belong_to_the_recipe_that_is_run(gap, tmp_path):
    manager = PluginManager()
    manager.add_file(gap)
    manager.files = [gap]
    assert load_recipe("quickstart", (), manager).plugins == [str(gap)]
    assert load_recipe(recipe_of(tmp_path), (), manager).plugins == [str(gap)]


def test_a_student_of_a_plugin_that_is_not_here_says_what_it_was_made_with(tmp_path):
    wrist = {"name": "wrist", "axes": ["time", "channel"], "layout": ["channel", "time"], "units": "g"}
    told = {"format": 1, "modalities": [wrist], "transforms": {"wrist": []}, "classes": ["a"], "in_shape": [3, 8]}
    told |= {"encoder": {"name": "gone"}}
    save_file({}, tmp_path / "weights.safetensors")
    (tmp_path / "student.json").write_text(json.dumps(told | {"plugins": {"my-net": "file 0123456789ab"}}))
    with pytest.raises(
        PluginError, match=r"no encoder 'gone'.*the run used the plugins my-net file 0123456789ab: install what is"
    ):
        load_student(tmp_path, PluginManager())


@pytest.fixture
def home(tmp_path_factory):
    """A folder with the tiny recipe and the file."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "gap_loss.py").write_text(GAP)
    return Home(folder, folder / "mlflow.db")


def stages(**student):
    return {"name": "two-stage", "teachers": {"epochs": 1}, "student": {"epochs": 2, **student}}


@pytest.mark.slow
def test_a_stopped_run_goes_on_although_the_file_has_changed(home):
    home.write(plugins=["gap_loss.py"], losses=["cross-entropy", "gap"], schedule=stages(), seeds=[0], baseline=False)
    assert home.run(die=("torch.optim:AdamW.step", 6)) < 0
    (home.folder / "gap_loss.py").write_text("raise ValueError")
    assert home.resume() == 0, home.said()
    [run] = home.runs
    assert (run / "plugins" / "gap_loss.py").read_text() == GAP
    assert "cannot be tracked" not in home.said(), "MLflow refuses other values of parameters"
    assert {params["plugins"] for _, params, _ in tracked(home).values()} == {"['plugins/gap_loss.py']"}
    assert "- plugins/gap_loss.py" in (run / "recipe.yaml").read_text()
    assert re.search('"plugin.gap-loss": "file [0-9a-f]{12}"', (run / "tracking" / "journal.jsonl").read_text())


@pytest.mark.slow
def test_a_crash_in_forward_names_the_plugin(home):
    home.write(losses=["cross-entropy", {"name": "gap", "broken": True}], schedule=stages(), seeds=[0], baseline=False)
    assert home.run("--plugin", "gap_loss.py") == 1
    said = home.said().strip().splitlines()[-1]
    assert said.startswith(f"error: plugin 'gap-loss' ({home.folder / 'gap_loss.py'}): loss 'gap' failed in forward (")
    assert "RuntimeError: the shapes do not meet" in said
    assert "Traceback" not in home.said()
