"""The page of the graph: its recipes validate, and its commands print what it shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from pages import CHECKOUT, Block, blocks
from runs import typed

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


def without_hash(text: str) -> str:
    """A text without the hash of a recipe, which changes with every default."""
    return re.sub(r"hash [0-9a-f]{12}", "hash", text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for block in FILES:
        (tmp_path / block.title).write_text(block.text, encoding="utf-8")
    return tmp_path


def test_page_shows_refusals():
    assert sum(answer.endswith("nothing was run.") for _, answer in SHOWN) > 8


@pytest.mark.parametrize("block", FILES, ids=lambda block: block.title)
def test_recipe_on_the_page_is_valid(block: Block, folder: Path):
    done = typed("validate", block.title, folder=folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("command", "answer"), SHOWN, ids=[command for command, _ in SHOWN])
def test_command_prints_what_the_page_shows(command: str, answer: str, folder: Path):
    words = shlex.split(command)
    assert words[0] == "kdcore"
    done = typed(*words[1:], folder=folder, COLUMNS="400")
    assert done.returncode == (2 if answer.endswith("nothing was run.") else 0)
    assert without_hash((done.stdout + done.stderr).strip()) == without_hash(answer)
