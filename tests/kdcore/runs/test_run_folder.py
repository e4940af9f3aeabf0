"""The folder of a run: it appears once it is complete, and the checkpoints are deleted at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from kdcore.errors import TrainingError
from kdcore.plugin.manager import plugin_manager
from kdcore.recipe.load import load_recipe
from kdcore.recipe.plan import make_plan
from kdcore.runs.paths import known_runs
from kdcore.runs.run import resume, run
from kdcore.runs.run_folder import make_folder
from kdcore.runs.state import RunState
from kdcore.training.checkpoint import Checkpoints, write_file
from kdcore.training.fabric import make_fabric

SHORT = {
    "schedule": {"name": "two-stage", "teachers": {"epochs": 1}, "student": {"epochs": 1}},
    "seeds": [0],
    "baseline": False,
    "engine": {"accelerator": "cpu"},
}


def test_a_run_is_listed_once_its_folder_is_complete(home, monkeypatch):
    """A run that is killed earlier would be resumed without its split and command, or not at all."""
    listed, wrong = [], True

    def write(path, content):
        listed.append(known_runs())
        write_file(path, content)
        if path.name == "progress.json" and wrong:
            raise TrainingError("the disk is full")

    for module in ("run_folder", "state"):
        monkeypatch.setattr(f"kdcore.runs.{module}.write_file", write)
    plugins = plugin_manager()
    plan = make_plan(load_recipe(home.write(**SHORT).recipe, (), plugins))
    fabric, before = make_fabric(plan.recipe.engine), known_runs()
    with pytest.raises(TrainingError, match="the disk is full"):
        make_folder(plan, fabric, RunState(split="validation"))
    assert sorted(os.listdir(home.folder / "runs")) == sorted(before)
    wrong = False
    folder = make_folder(plan, fabric, RunState(split="validation"))
    assert listed == [before] * 4
    assert sorted(known_runs()) == sorted([*before, folder.name])
    assert RunState.read(folder).split == "validation"


def test_a_new_run_removes_the_folders_of_runs_that_were_killed_while_they_were_created(home):
    plan = make_plan(load_recipe(home.write(**SHORT).recipe))
    runs = home.folder / "runs"
    locked = "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(flush=True); input()"
    killed, at_work = runs / ".20260101-000000-quickstart-abcdef.part", runs / ".20260101-000001-quickstart-abcdef.part"
    for unfinished in (killed, at_work):
        (unfinished / "plugins").mkdir(parents=True)
        (unfinished / "recipe.yaml").touch()
    command = [sys.executable, "-c", locked, str(at_work / "run.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        make_folder(plan, make_fabric(plan.recipe.engine), RunState())
        assert not killed.exists()
        assert (at_work / "recipe.yaml").exists()
        process.communicate(b"\n")
    make_folder(plan, make_fabric(plan.recipe.engine), RunState())
    assert not at_work.exists()


@pytest.mark.slow
def test_a_run_killed_before_its_last_checkpoints_are_deleted_leaves_none(home, monkeypatch):
    def killed(self):
        raise TrainingError("killed here")

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "clear", killed)
        with pytest.raises(TrainingError, match="killed here"):
            run(home.write(**SHORT).recipe)
    folder = home.runs[0]
    assert list((folder / "checkpoints").rglob("*.safetensors"))
    resume(folder.name)
    assert json.loads((folder / "progress.json").read_text())["complete"]
    assert not (folder / "checkpoints").exists()
