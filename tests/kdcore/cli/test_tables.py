"""Tables in terminals of any width, and in pipes."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from kdcore.cli.tables import output_console, show_table, size_text

CELLS = ("a student with many teachers", "accelerometer and gyroscope", "71.3 ± 2.1")


def printed(width: int) -> str:
    table = Table("role", "reads", "accuracy", title="Results", caption="It helps.")
    table.add_row(*CELLS)
    table.add_row("teacher", "", "80.0")
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    show_table(console, table)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 200])
def test_nothing_is_cut_at_any_width(width):
    said = printed(width)
    assert "…" not in said
    assert all(len(line) <= width for line in said.splitlines())
    for word in " ".join(CELLS).split():
        assert word in said


def test_a_terminal_that_is_too_narrow_gets_a_line_per_cell():
    assert "role: teacher\naccuracy: 80.0\n" in printed(24)
    assert "role: teacher" not in printed(80)


def test_a_pipe_is_100_columns_wide(monkeypatch):
    for columns in ("", "0", "many"):
        monkeypatch.setenv("COLUMNS", columns)
        assert output_console().width == 100
    monkeypatch.delenv("COLUMNS")
    assert output_console().width == 100
    monkeypatch.setenv("COLUMNS", "50")
    assert output_console().width == 50


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (3_400_000, "3.4 MB"), (999_600, "1 MB"), (2 * 10**13, "20 TB")],
)
def test_sizes(count, text):
    assert size_text(count) == text


@pytest.mark.parametrize("width", [40, 50, 60])
def test_words_are_not_broken_where_others_have_room(width):
    said = printed(width)
    words = {word for line in said.splitlines() for word in line.replace("┃", "│").split("│") for word in word.split()}
    assert set(" ".join(CELLS).split()) <= words
