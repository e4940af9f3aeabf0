"""The guides, followed step by step by somebody who types every command.

Trainings whose results no later step needs are cut short to a dry run, and the tests of a new plugin that was not changed are
only collected: that both work in full is tested where templates and examples are.
"""

from __future__ import annotations

import glob
import os
import shlex
import subprocess
import sys

import pytest
from pages import GUIDES, blocks
from shell import Shell

pytestmark = [pytest.mark.guides, pytest.mark.slow]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Makes a new place to work in; what was prepared or tracked in one is there in the next."""
    folder = tmp_path_factory.mktemp("guides")
    (folder / "cache").mkdir()

    def make(name: str) -> Shell:
        place = folder / name
        place.mkdir()
        shell = Shell(place, place / "site")
        shell.environment |= {
            "KDCORE_CACHE": str(folder / "cache"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        }
        return shell

    return make


@pytest.mark.parametrize("guide", GUIDES, ids=lambda page: page.stem)
def test_guide_works_as_it_is_written(places, guide):
    shell = places(guide.stem)
    for block in blocks(guide):
        if block.title:
            file = shell.folder / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
        for line in block.commands if block.language == "console" else ():
            shell = follow(shell, line)


def follow(shell: Shell, line: str) -> Shell:
    """Carry out a line of a guide; returns where one is afterwards."""
    words = [found for word in shlex.split(line) for found in expanded(shell, word)]
    if words[0] == "cd":
        return shell.inside(words[1])
    if words[0] == "kdcore":
        shell.kdcore(*words[1:], *quickly(words, shell))
    elif words[0] == "pytest":
        changed = "write-a-loss" in shell.folder.parts
        shell.pytest("-q", *words[1:], *([] if changed else ["--collect-only"]))
    elif words[:3] == ["pip", "install", "-e"]:
        shell.install_in_place(shell.folder)
    elif words == ["python", "-m", "build"]:
        assert len(shell.build(shell.folder, shell.folder / "dist", "wheel", "sdist")) == 2
    elif words[0] == "python":
        command = [sys.executable, *words[1:]]
        environment = os.environ | shell.environment
        done = subprocess.run(command, cwd=shell.folder, env=environment, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    else:
        pytest.fail(f"nobody knows how to follow {line!r}; mark it sh if it cannot be followed here")
    return shell


def expanded(shell: Shell, word: str) -> list[str]:
    """The shell's expansion of a word with a star."""
    return sorted(glob.glob(word, root_dir=shell.folder)) if "*" in word else [word]


def quickly(words: list[str], shell: Shell) -> list[str]:
    """Settings that keep a run from looking for accelerators, and from training where nothing comes of it."""
    if words[1] != "run":
        return []
    if "--profile" in words:  # requires training steps
        return ["engine.accelerator=cpu", "seeds=[0]", "schedule.teachers.epochs=1", "schedule.student.epochs=1"]
    needed = "deploy-the-student" in shell.folder.parts or "--dry-run" in words
    return ["engine.accelerator=cpu", *([] if needed else ["--dry-run"])]
