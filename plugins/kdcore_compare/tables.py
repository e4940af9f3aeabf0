"""Output of tables to the terminal or files, as Markdown, CSV, LaTeX or HTML."""

from __future__ import annotations

import csv
import io
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Literal

from kdcore import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

NO_BREAK = "\u00a0"

NARROWEST, DEFAULT_WIDTH, UNLIMITED = 20, 80, 10_000
"""Widths in characters: minimum, of a terminal with unknown width, and of a pipe."""

Format = Literal["rich", "markdown", "csv", "latex", "html"]

SUFFIXES: Mapping[str, Format] = {".md": "markdown", ".csv": "csv", ".tex": "latex", ".html": "html"}

_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--"}
_LATEX |= {sign: f"\\{sign}" for sign in "&%$#_{}"} | {"<": r"\textless{}", ">": r"\textgreater{}", "−": "$-$", "→": r"$\to$"}


@dataclass(frozen=True)
class Table:
    """Text in rows and columns.

    Args:
        title: Title above the table.
        headings: Headings of the columns; the first column holds text, the others numbers.
        rows: Cells of each row.
        notes: Lines below the table.
        strong: Indices of rows in bold.
        droppable: Indices of columns that a narrow terminal may leave out, in this order.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = field(default_factory=list)
    strong: Sequence[int] = ()
    droppable: Sequence[int] = ()


@dataclass(frozen=True)
class Output:
    """The options ``--format`` and ``--output``.

    Args:
        form: Format. ``rich``, which is for terminals only, becomes the format for the suffix of `path`.
        path: File for the tables. Default: standard output.

    Raises:
        UsageError: If the suffix is not a known format.
    """

    form: Format = "rich"
    path: Path | None = None

    def __post_init__(self) -> None:
        if self.path is None or self.form != "rich":
            return
        suffix = self.path.suffix.lower()
        if suffix not in SUFFIXES:
            known = ", ".join(SUFFIXES)
            raise UsageError(f"--output {self.path}: cannot tell the format from the suffix ({known}); use --format")
        object.__setattr__(self, "form", SUFFIXES[suffix])

    def write(self, tables: Sequence[Table], records: Sequence[Mapping[str, object]]) -> None:
        """Print tables, or write them to a file and print its path."""
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(render(tables, records, self.form), encoding="utf-8")
            print(self.path)
        elif self.form == "rich":
            print_tables(tables)
        else:
            sys.stdout.write(render(tables, records, self.form))


TO_TERMINAL = Output()
"""Print tables to standard output."""


def render(tables: Sequence[Table], records: Sequence[Mapping[str, object]], form: Format) -> str:
    """Return tables as text in any format except ``rich``. CSV contains the `records`, whose keys are its columns."""
    if form == "csv":
        return to_csv(records)
    if form == "html":
        return to_html(tables)
    one = {"markdown": to_markdown, "latex": to_latex}[form]
    return "\n".join(map(one, tables))


def print_tables(tables: Sequence[Table]) -> None:
    """Print tables to the terminal, or at their natural width to a pipe.

    A table that is too wide loses its droppable columns, which are named below it. If that is not enough, each row is printed
    as a block of ``heading: cell`` lines.
    """
    from rich.console import Console
    from rich.text import Text

    width = terminal_width()
    console = Console(width=width)
    for each in tables:
        console.print(Text(each.title))
        dropped: list[int] = []
        while _width(shown := _rich(each, dropped)) > width and len(dropped) < len(each.droppable):
            dropped.append(each.droppable[len(dropped)])
        if _width(shown) > width:
            dropped, shown = [], _blocks(each)
        console.print(shown)
        for line in each.notes:
            console.print(Text(line))
        if dropped:
            names = ", ".join(_column(each, index) for index in sorted(dropped))
            console.print(Text(f"Columns left out (narrow terminal): {names}."))
        console.print()


def terminal_width() -> int:
    """Return the width to print at: ``$COLUMNS`` if positive, or else that of the terminal; unlimited in a pipe."""
    from rich.console import Console

    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return max(NARROWEST, int(columns))
    if not sys.stdout.isatty():
        return UNLIMITED
    found = Console(_environ={name: value for name, value in os.environ.items() if name != "COLUMNS"}).width
    return max(NARROWEST, found) if found else DEFAULT_WIDTH


def stderr_console() -> Console:
    """Return a console for progress on stderr, at least 80 characters wide."""
    from rich.console import Console

    console = Console(stderr=True)
    return console if console.width >= NARROWEST else Console(stderr=True, width=DEFAULT_WIDTH)


def _blocks(table: Table) -> Text:
    """Return the rows of a table as blocks of lines, for narrow terminals."""
    from rich.text import Text

    shown = Text()
    for number, row in enumerate(table.rows):
        first = f"{table.headings[0]} {row[0]}".strip()
        shown.append(f"{first}\n", style="bold" if number in table.strong else "")
        heading = ""
        for index in range(1, len(row)):
            heading = table.headings[index] or heading
            shown.append(f"  {heading}: {row[index]}\n" if row[index] else "")
    return shown


def _column(table: Table, index: int) -> str:
    """Return the heading of a column; a repeated one is followed by the nearest unique heading before it."""
    once = [heading for heading in table.headings[:index] if table.headings.count(heading) == 1 and heading]
    heading = table.headings[index]
    return f"{heading} ({once[-1]})" if table.headings.count(heading) > 1 and once else heading


def _heading(table: Table, index: int) -> str:
    """Return the heading of a column, wrapped to the width of its cells; a percent sign is not wrapped."""
    if index == 0:
        return table.headings[0]
    text = table.headings[index].replace(" %", f"{NO_BREAK}%")
    width = max(1, *map(len, [*text.split(" "), *(row[index] for row in table.rows)]))
    return "\n".join(wrap(text, width, break_long_words=False, break_on_hyphens=False)).replace(NO_BREAK, " ")


def _width(table: RichTable) -> int:
    """Return the natural width of a table, in characters."""
    from rich.console import Console

    return Console(width=UNLIMITED).measure(table).maximum


def _rich(table: Table, dropped: Sequence[int]) -> RichTable:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    kept = [index for index in range(len(table.headings)) if index not in dropped]
    for index in kept:
        shown.add_column(Text(_heading(table, index)), justify="right" if index else "left", no_wrap=True)
    for number, row in enumerate(table.rows):
        shown.add_row(*(Text(row[index]) for index in kept), style="bold" if number in table.strong else None)
    return shown


def to_markdown(table: Table) -> str:
    """Return a table in Markdown, with title and notes."""
    lines = [f"**{table.title}**", "", _pipes(table.headings), _pipes(["---", *["---:"] * (len(table.headings) - 1)])]
    for number, row in enumerate(table.rows):
        lines.append(_pipes([f"**{cell}**" if number in table.strong and cell else cell for cell in row]))
    lines += [line for note in table.notes for line in ("", note)]
    return "\n".join(lines) + "\n"


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(re.sub(r"([|\\])", r"\\\1", cell) for cell in cells) + " |"


def to_csv(records: Sequence[Mapping[str, object]]) -> str:
    """Return records as CSV, with empty cells for None."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for record in records for key in record)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def to_latex(table: Table) -> str:
    """Return a LaTeX ``table`` environment with `booktabs` rules."""
    body = [_row(table.headings), r"\midrule"]
    for number, row in enumerate(table.rows):
        body.append(_row(row, number in table.strong))
    notes = " ".join(_latex(note if note.endswith((".", ":")) else f"{note}.") for note in table.notes)
    lines = [
        r"\begin{table}",
        rf"\caption{{{_latex(table.title)}. {notes}}}" if notes else rf"\caption{{{_latex(table.title)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.headings) - 1)}}}",
        r"\toprule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str], strong: bool = False) -> str:
    row = [rf"\textbf{{{_latex(cell)}}}" if strong and cell else _latex(cell) for cell in cells]
    return " & ".join(row) + r" \\"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def to_html(tables: Sequence[Table]) -> str:
    """Return tables as a complete HTML page."""
    title = escape(tables[0].title) if tables else ""
    body = "\n".join(map(_html_table, tables))
    style = (
        "body{max-width:70rem;margin:2rem auto;padding:0 1rem;font:16px/1.5 system-ui,sans-serif}"
        "table{border-collapse:collapse;margin:.5rem 0;font-variant-numeric:tabular-nums}"
        "th,td{padding:.35rem .8rem .35rem 0;border-bottom:1px solid #dfe3ea;text-align:right}"
        "th:first-child,td:first-child{text-align:left}caption{text-align:left;font-weight:600}p{color:#5d6675}"
    )
    head = f'<meta charset="utf-8"><title>{title}</title><style>{style}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in table.headings)
    rows = []
    for number, row in enumerate(table.rows):
        cells = (f"<b>{escape(cell)}</b>" if number in table.strong else escape(cell) for cell in row)
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    notes = "\n".join(f"<p>{escape(note)}</p>" for note in table.notes)
    caption = f"<caption>{escape(table.title)}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>\n" + "\n".join(rows) + f"\n</tbody></table>\n{notes}"
