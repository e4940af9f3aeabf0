"""The table of results that a run prints last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdcore.recipe.plan import DISTILLED
from kdcore.runs.summary import Summary

if TYPE_CHECKING:
    from rich.table import Table

LONG, MOST_SEEDS = ("reads", "parameters"), 3
"""Columns left to the report, and the number of seeds up to which each has a column."""


def table(summary: Summary) -> Table:
    """The results as a `rich` table, for the end of a run."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    found = Table(
        title=Text(f"{summary.name}: {summary.split} {summary.metric.heading}"),
        title_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    # A terminal is narrow: what the report has beyond these is left to it.
    crowded = len(summary.seeds) > MOST_SEEDS
    columns = [each for each in summary.headings() if each not in LONG and not (crowded and each.startswith("seed "))]
    for heading in columns:
        left = heading in ("participant", "role")
        found.add_column(Text(heading), justify="left" if left else "right", no_wrap=not left)
    for row in summary.rows:
        named = dict(zip(summary.headings(), row.cells(), strict=True))
        found.add_row(
            *(Text(named[heading]) for heading in columns), style="bold" if row.role in (DISTILLED, "student") else None
        )
    return found
