"""Tables that stay readable in a pipe and in a narrow terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from kdcore.errors import printable

PIPED = 100
"""Width in characters when the output goes to a file or a pipe and ``COLUMNS`` does not give one."""

WIDE = 1000
"""Width at which contents are measured: no line is wrapped."""


def output() -> Console:
    """Return a console for standard output; `PIPED` wide where that is no terminal and ``COLUMNS`` is 0 or not set."""
    columns = os.environ.get("COLUMNS", "")
    known = int(columns) > 0 if columns.isdigit() else sys.stdout.isatty()  # rich would print nothing into 0 columns
    return SafeConsole(width=None if known else PIPED)


class SafeConsole(Console):
    """A console that spells out control characters in what it is given to print, as in names from files."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Text of a cell or line."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: Any, options: Any = None) -> Iterator[Segment]:
        """Segments of text and style; what they say is made printable, and the codes that the console adds are not."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def show_table(console: Console, table: Table) -> None:
    """Print a table, its cells wrapped between words; row by row where the terminal is too narrow for that."""
    for column in table.columns:
        column.overflow, column.no_wrap = "fold", False
    narrowest = Measurement.get(console, console.options.update(width=WIDE), table).minimum
    if narrowest <= console.width:
        _set_widths(console, table, console.width - narrowest)
        console.print(table)
    else:
        _show_rows(console, table)


def _set_widths(console: Console, table: Table, spare: int) -> None:
    """Give every column the width of its longest word, and share the `spare` width, so that short columns are not wrapped.

    Rich itself narrows the widest columns, and so breaks words in them while others have room.
    """
    options = console.options.update(width=WIDE)
    needs = [
        [Measurement.get(console, options, each) for each in (_text(column.header), *map(_text, column.cells))]
        for column in table.columns
    ]
    shortest = [max(each.minimum for each in found) for found in needs]
    missing = [max(each.maximum for each in found) - least for found, least in zip(needs, shortest, strict=True)]
    order = sorted(range(len(missing)), key=missing.__getitem__)
    for position, number in enumerate(order):
        more = min(missing[number], spare // (len(order) - position))
        table.columns[number].width = shortest[number] + more
        spare -= more


def _show_rows(console: Console, table: Table) -> None:
    """Print a paragraph per row, with a line per cell."""
    if table.title:
        console.print(_text(table.title), style="bold")
    headings = [_text(column.header) for column in table.columns]
    for row in zip(*(column.cells for column in table.columns), strict=True):
        for heading, cell in zip(headings, map(_text, row), strict=True):
            if cell.plain:
                console.print(Text.assemble(heading, ": ", cell))
        console.print()
    if table.caption:
        console.print(_text(table.caption))


def _text(written: object) -> Text:
    return written if isinstance(written, Text) else Text(str(written))


def size_text(count: int) -> str:
    """Return a number of bytes with a unit, e.g. ``3.4 MB``."""
    amount, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 999.5 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{count} B" if units[0] == "B" else f"{amount:.3g} {units[0]}"
