"""Tables at every width, in a terminal and in a pipe."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from kdcore_compare.tables import Table, print_tables

SWEEP = Table(
    "Sweep of tiny, 2 points",
    ["point", "losses.soft-target.weight", "losses.soft-target.temperature", "validation accuracy, %", ""],
    [["0", "0.125", "4", "71.2 ± 3.0", ""], ["1", "17", "8", "69.5 ± 0.4", ""]],
    ["Ranked by accuracy on the validation split."],
    strong=[0],
)
WORDS = ["Sweep of tiny, 2 points", "0.125", "17", "71.2 ± 3.0", "69.5 ± 0.4", "Ranked by accuracy on the validation split."]


def in_one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("columns", ["0", "1", "20", "40", "60", "80", "200", "", "many"])
@pytest.mark.parametrize("term", ["dumb", "xterm-256color"])
def test_no_width_loses_a_cell(monkeypatch, capsys, columns, term):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", term)
    print_tables([SWEEP])
    out = capsys.readouterr().out
    for word in WORDS:
        assert word in in_one_line(out)
    assert "…" not in out
    if columns.isdecimal() and int(columns) >= 20:
        assert max(map(len, out.splitlines())) <= int(columns)


def test_a_pipe_has_the_table_in_columns(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    print_tables([SWEEP])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["0", "0.125", "4", "71.2", "±", "3.0"] in lines


def test_a_narrow_terminal_has_a_block_for_each_row(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    print_tables([SWEEP])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:5] == [
        "point 0",
        "  losses.soft-target.weight: 0.125",
        "  losses.soft-target.temperature: 4",
        "  validation accuracy, %: 71.2 ± 3.0",
    ]


def test_an_empty_table_and_an_empty_column_are_printed(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    print_tables([Table("Nothing", ["a", ""], [], []), Table("Blank", ["a", ""], [["", ""]])])
    assert "Nothing" in capsys.readouterr().out


@pytest.mark.parametrize("width", [0, 30])
def test_a_terminal_that_is_narrow_or_does_not_tell_its_width(width):
    program = (
        "import fcntl, struct, termios\n"
        f"fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack('HHHH', 24, {width}, 0, 0))\n"
        "from kdcore_compare.tables import Table, print_tables\n"
        "print_tables([Table('Title', ['point', 'losses.soft-target.weight', ''], [['0', '0.125', '']])])\n"
    )
    parent, child = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdout=child,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env=environment | {"TERM": "dumb"},
        check=False,
    )
    os.close(child)
    said = os.read(parent, 10_000).decode()
    assert done.returncode == 0, done.stderr
    assert "0.125" in said
