"""Tables as a terminal, Markdown, CSV, LaTeX or HTML shows them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from textwrap import wrap
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.table import Table as RichTable

NO_BREAK = "\u00a0"

Format = Literal["rich", "markdown", "csv", "latex", "html"]

_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--"}
_LATEX |= {sign: f"\\{sign}" for sign in "&%$#_{}"} | {"<": r"\textless{}", ">": r"\textgreater{}", "−": "$-$", "→": r"$\to$"}


@dataclass(frozen=True)
class Table:
    """Text in rows and columns.

    Args:
        title: Above it.
        headings: Of the columns; the first column is text, the others numbers.
        rows: Cells.
        notes: Below it, a line each.
        strong: Indices of rows that stand out.
        spare: Indices of columns that a narrow terminal goes without, the first of them first.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = field(default_factory=list)
    strong: Sequence[int] = ()
    spare: Sequence[int] = ()


def rendered(tables: Sequence[Table], records: Sequence[Mapping[str, object]], form: Format) -> str:
    """All tables as text of a format other than ``rich``; as CSV, the `records`, whose keys are the columns."""
    if form == "csv":
        return as_csv(records)
    if form == "html":
        return as_page(tables)
    one = {"markdown": as_markdown, "latex": as_latex}[form]
    return "\n".join(map(one, tables))


def show(tables: Sequence[Table]) -> None:
    """Print tables in the terminal."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for each in tables:
        left_out: list[int] = []
        while _width(shown := _rich(each, left_out)) > console.width and len(left_out) < len(each.spare):
            left_out.append(each.spare[len(left_out)])
        console.print(shown)
        for line in each.notes:
            console.print(Text(line))
        if left_out:
            console.print(Text(f"Left out for want of room: {', '.join(_column(each, index) for index in sorted(left_out))}."))
        console.print()


def _column(table: Table, index: int) -> str:
    """A column's heading, with the nearest one before it that no other column has, where others have the same."""
    once = [heading for heading in table.headings[:index] if table.headings.count(heading) == 1 and heading]
    heading = table.headings[index]
    return f"{heading} ({once[-1]})" if table.headings.count(heading) > 1 and once else heading


def _heading(table: Table, index: int) -> str:
    """A column's heading in lines no wider than the column must be; a percent sign stays with what it follows."""
    if index == 0:
        return table.headings[0]
    text = table.headings[index].replace(" %", f"{NO_BREAK}%")
    width = max(map(len, [*text.split(" "), *(row[index] for row in table.rows)]))
    return "\n".join(wrap(text, width, break_long_words=False, break_on_hyphens=False)).replace(NO_BREAK, " ")


def _width(table: RichTable) -> int:
    """How wide a table is where there is room."""
    from rich.console import Console

    return Console(width=10_000).measure(table).maximum


def _rich(table: Table, left_out: Sequence[int]) -> RichTable:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(title=Text(table.title), title_justify="left", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    kept = [index for index in range(len(table.headings)) if index not in left_out]
    for index in kept:
        shown.add_column(Text(_heading(table, index)), justify="right" if index else "left", no_wrap=True)
    for number, row in enumerate(table.rows):
        shown.add_row(*(Text(row[index]) for index in kept), style="bold" if number in table.strong else None)
    return shown


def as_markdown(table: Table) -> str:
    """A Markdown table with its title and notes."""
    lines = [f"**{table.title}**", "", _pipes(table.headings), _pipes(["---", *["---:"] * (len(table.headings) - 1)])]
    for number, row in enumerate(table.rows):
        lines.append(_pipes([f"**{cell}**" if number in table.strong and cell else cell for cell in row]))
    lines += [line for note in table.notes for line in ("", note)]
    return "\n".join(lines) + "\n"


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(re.sub(r"([|\\])", r"\\\1", cell) for cell in cells) + " |"


def as_csv(records: Sequence[Mapping[str, object]]) -> str:
    """Records as CSV; None is left empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for record in records for key in record)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def as_latex(table: Table) -> str:
    """A ``table`` environment with `booktabs` rules."""
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
    told = [rf"\textbf{{{_latex(cell)}}}" if strong and cell else _latex(cell) for cell in cells]
    return " & ".join(told) + r" \\"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def as_page(tables: Sequence[Table]) -> str:
    """A whole HTML page."""
    title = escape(tables[0].title) if tables else ""
    body = "\n".join(map(_html, tables))
    style = (
        "body{max-width:70rem;margin:2rem auto;padding:0 1rem;font:16px/1.5 system-ui,sans-serif}"
        "table{border-collapse:collapse;margin:.5rem 0;font-variant-numeric:tabular-nums}"
        "th,td{padding:.35rem .8rem .35rem 0;border-bottom:1px solid #dfe3ea;text-align:right}"
        "th:first-child,td:first-child{text-align:left}caption{text-align:left;font-weight:600}p{color:#5d6675}"
    )
    head = f'<meta charset="utf-8"><title>{title}</title><style>{style}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def _html(table: Table) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in table.headings)
    rows = []
    for number, row in enumerate(table.rows):
        cells = (f"<b>{escape(cell)}</b>" if number in table.strong else escape(cell) for cell in row)
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    notes = "\n".join(f"<p>{escape(note)}</p>" for note in table.notes)
    caption = f"<caption>{escape(table.title)}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>\n" + "\n".join(rows) + f"\n</tbody></table>\n{notes}"
