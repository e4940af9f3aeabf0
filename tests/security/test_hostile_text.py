"""Recipes, names and messages from strangers run nothing and hide nothing."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.table import Table
from summaries import summary

from kdcore.cli.tables import SafeConsole, show_table
from kdcore.errors import RecipeError, printable
from kdcore.recipe.load import load_recipe
from kdcore_report.html_report import write_page

LEVELS = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
BOMB = "\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x, x]", *LEVELS])


@pytest.mark.parametrize(
    "text",
    [
        "student: !!python/object/apply:os.mkdir [executed]",
        "student: !!python/object/new:os.mkdir [executed]",
        "student: !!python/name:os.mkdir",
        "student: !!python/module:os",
        "!!python/object/apply:os.mkdir [executed]",
        BOMB,
        "<<: {name: merged}",
        "base: &base {name: merged}\n<<: *base",
        "name: ../../outside",
        "name: /outside",
        "extends: /etc/passwd",
    ],
)  # fmt: skip
def test_recipes_run_nothing_and_show_nothing(tmp_path, proof, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(text if text.startswith("extends") else f"extends: quickstart\n{text}\n")
    with pytest.raises(RecipeError) as error:
        load_recipe(tmp_path / "recipe.yaml")
    assert "root:" not in str(error.value)


def test_merge_keys_are_ordinary_keys(tmp_path):
    (tmp_path / "recipe.yaml").write_text("extends: quickstart\n<<: {name: merged}\n")
    with pytest.raises(RecipeError, match="unknown key '<<'"):
        load_recipe(tmp_path / "recipe.yaml")


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs


ATTACK = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'><svg onload=alert(1)>"


def test_reports_run_nothing(tmp_path, figures):
    found = summary(
        name=ATTACK, description=ATTACK, rule=ATTACK, selection=ATTACK, classes=[ATTACK, "b", "c", f"{ATTACK}2"], recipe=ATTACK,
        command=ATTACK, tracking=ATTACK, setting=ATTACK, notes=[ATTACK], versions={ATTACK: ATTACK}, folder=Path(ATTACK),
    )  # fmt: skip
    rows = [type(row)(ATTACK, row.role, ATTACK, row.evaluations, row.parameters, row.arm) for row in found.rows]
    found = summary(**{**vars(found), "rows": rows, "differences": {ATTACK: found.difference}})
    write_page(tmp_path / "report.html", found, {ATTACK: {ATTACK: [(0, 1.0), (1, 0.5)]}})
    page = Tags((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    sources = [value for name, value in page.attributes if name in ("src", "href", "action", "data")]
    assert all(value.startswith("data:image/png;base64,") for value in sources)


ESCAPES = "\x1b[2J\x1b]0;title\x07\x9b31m\u202egnp.exe\r"


def test_names_do_nothing_to_a_terminal(capsys):
    assert printable(ESCAPES) == "\\x1b[2J\\x1b]0;title\\x07\\x9b31m\\u202egnp.exe\\r"
    assert printable("Grüße\n\tzwei — 你好") == "Grüße\n\tzwei — 你好"
    for forced in (False, True):
        written = io.StringIO()
        console = SafeConsole(file=written, force_terminal=forced, width=80)
        table = Table(ESCAPES)
        table.add_row(ESCAPES)
        show_table(console, table)
        console.print(ESCAPES, markup=False, style="red")
        said = written.getvalue()
        assert not any(part in said for part in ("\x1b[2J", "\x1b]0", "\x07", "\x9b", "\u202e", "\r"))
        assert ("\x1b[31m" in said) == forced, "the console's own colours work"


def test_errors_of_commands_do_nothing_to_a_terminal(tmp_path):
    name = f"{ESCAPES}.yaml"
    done = subprocess.run(
        [sys.executable, "-m", "kdcore", "validate", name], capture_output=True, cwd=tmp_path, env={**os.environ}, check=False
    )
    assert done.returncode == 2
    assert not any(part in done.stderr for part in (b"\x1b", b"\x07", b"\r", "\u202e".encode()))
