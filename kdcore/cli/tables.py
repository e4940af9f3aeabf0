"""Tables that stay readable in pipes and narrow terminals."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from kdcore.errors import printable

PIPED = 100
"""Width in characters of output to a file or pipe if ``COLUMNS`` is not set."""

WIDE = 1000
"""Width in characters at which contents are measured, so that no line is wrapped."""


def output_console() -> Console:
    """Return a console for standard output. Its width is `PIPED` if ``COLUMNS`` is 0, or unset without a terminal."""
    columns = os.environ.get("COLUMNS", "")
    has_width = int(columns) > 0 if columns.isdigit() else sys.stdout.isatty()  # with 0 columns, rich prints nothing
    return SafeConsole(width=None if has_width else PIPED)


class SafeConsole(Console):
    """A console that escapes control characters in the text that it prints, such as names read from files."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Return `text` as rich text, with control characters escaped."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: Any, options: Any = None) -> Iterator[Segment]:
        """Yield segments with control characters in their text escaped. The console's own control codes are kept."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def new_table(*headings: str, **options: Any) -> Table:
    """Return an empty table without a frame."""
    return Table(*headings, box=SIMPLE_HEAD, show_edge=False, pad_edge=False, **options)


def show_table(console: Console, table: Table) -> None:
    """Print a table with cells wrapped between words, or as one paragraph per row if the terminal is too narrow."""
    for column in table.columns:
        column.overflow, column.no_wrap = "fold", False
    narrowest = Measurement.get(console, console.options.update(width=WIDE), table).minimum
    if narrowest <= console.width:
        _set_widths(console, table, console.width - narrowest)
        console.print(table)
    else:
        _show_rows(console, table)


def _set_widths(console: Console, table: Table, spare: int) -> None:
    """Give each column the width of its longest word, and distribute the `spare` width so that short columns are not wrapped.

    Rich itself shrinks the widest columns, which breaks words while other columns still have room.
    """
    options = console.options.update(width=WIDE)
    measured = [
        [Measurement.get(console, options, each) for each in (_text(column.header), *map(_text, column.cells))]
        for column in table.columns
    ]
    shortest = [max(each.minimum for each in sizes) for sizes in measured]
    missing = [max(each.maximum for each in sizes) - minimum for sizes, minimum in zip(measured, shortest, strict=True)]
    order = sorted(range(len(missing)), key=missing.__getitem__)
    for position, index in enumerate(order):
        extra = min(missing[index], spare // (len(order) - position))
        table.columns[index].width = shortest[index] + extra
        spare -= extra


def _show_rows(console: Console, table: Table) -> None:
    """Print one paragraph per row, with one line per cell."""
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


def _text(content: object) -> Text:
    return content if isinstance(content, Text) else Text(str(content))


def size_text(count: int) -> str:
    """Return a number of bytes with a unit, e.g. ``3.4 MB``."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{count} B" if units[0] == "B" else f"{value:.3g} {units[0]}"
