"""Recipes and answers on the pages: recipes that are files validate, and `kdcore validate` says what a page shows."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from pages import CHECKOUT, Block, blocks

PAGE = CHECKOUT / "docs" / "graph.md"


def sessions(block: Block) -> list[tuple[str, str]]:
    """(command, what it answers) of a console block with answers."""
    found: list[tuple[str, list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        elif found:
            found[-1][1].append(line)
    return [(command, "\n".join(answer)) for command, answer in found]


SHOWN = [pair for block in blocks(PAGE) if block.language == "console" for pair in sessions(block)]
FILES = [block for block in blocks(PAGE) if block.title.endswith(".yaml")]


def carried_out(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "COLUMNS": "400"}
    command = [sys.executable, "-m", "kdcore", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=180)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for block in FILES:
        (tmp_path / block.title).write_text(block.text, encoding="utf-8")
    return tmp_path


def test_page_shows_refusals():
    assert len(SHOWN) > 8


@pytest.mark.parametrize("block", FILES, ids=lambda block: block.title)
def test_recipe_on_the_page_is_valid(block: Block, folder: Path):
    done = carried_out(["validate", block.title], folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("command", "answer"), SHOWN, ids=[command for command, _ in SHOWN])
def test_refusal_reads_as_shown(command: str, answer: str, folder: Path):
    words = shlex.split(command)
    assert words[0] == "kdcore"
    done = carried_out(words[1:], folder)
    assert done.returncode == 2
    assert (done.stdout + done.stderr).strip() == answer
