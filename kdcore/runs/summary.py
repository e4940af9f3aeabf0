"""What a run found, for people: a table for the terminal, and what the HTML report tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from kdcore.runs.metrics import Difference, Evaluation

if TYPE_CHECKING:
    from rich.table import Table

    from kdcore.results.examples import Example

Role = Literal["teacher", "teachers together", "student without distillation", "student with distillation", "students together"]
LONG, MOST_SEEDS = ("reads", "parameters"), 3
WITH, WITHOUT = "student with distillation", "student without distillation"


@dataclass(frozen=True)
class Row:
    """One participant's results.

    Args:
        participant: Its name.
        role: What it is in this run.
        modality: What it reads, in words.
        evaluations: On the samples evaluated, one per seed.
        parameters: How many numbers it learned; None where that makes no sense.
    """

    participant: str
    role: Role
    modality: str
    evaluations: Sequence[Evaluation]
    parameters: int | None = None

    def values(self, metric: str) -> list[float]:
        """One number per seed."""
        return [evaluation.metrics()[metric] for evaluation in self.evaluations]


@dataclass(frozen=True)
class Summary:
    """Everything a report tells.

    Args:
        name: Of the recipe.
        description: What its author says of it.
        rule: How the samples were split.
        selection: Which epoch's weights were evaluated, and how they were chosen.
        seeds: In the order of every row's evaluations.
        classes: Class names.
        rows: The participants, in the order to show them.
        difference: Student with minus student without; None where there is only one of them.
        curves: Title of a picture → name of a curve → (epoch, value) pairs.
        versions: Package → version.
        recipe: The recipe with every default filled in, as YAML.
        command: Repeats the run.
        folder: Where the run's files are.
        tracking: How to open what was tracked.
        part: Part of the split that was evaluated.
        setting: What was run, in words.
        examples: Samples to look at.
    """

    name: str
    description: str
    rule: str
    selection: str
    seeds: Sequence[int]
    classes: Sequence[str]
    rows: Sequence[Row]
    difference: Difference | None = None
    curves: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    recipe: str = ""
    command: str = ""
    folder: Path = Path()
    tracking: str = ""
    part: str = "test"
    setting: str = ""
    examples: Sequence[Example] = ()

    @property
    def answer(self) -> str:
        """Did distillation help? In a sentence."""
        if self.difference:
            return self.difference.sentence
        return "This run cannot say: the student was not also trained without distillation."

    def row(self, *roles: Role) -> Row | None:
        """The first participant in the first of these roles that is taken."""
        return next((row for role in roles for row in self.rows if row.role == role), None)


def table(summary: Summary) -> Table:
    """The results as a `rich` table, for the end of a run."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    found = Table(
        title=Text(f"{summary.name}: {summary.part} accuracy, %"),
        caption=Text(summary.answer),
        title_justify="left",
        caption_justify="left",
        caption_style="bold",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    # A terminal is narrow: what the report has beyond these is left to it.
    crowded = len(summary.seeds) > MOST_SEEDS
    columns = [each for each in headings(summary) if each not in LONG and not (crowded and each.startswith("seed "))]
    for heading in columns:
        left = heading in ("participant", "role")
        found.add_column(Text(heading), justify="left" if left else "right", no_wrap=not left)
    for row in summary.rows:
        named = dict(zip(headings(summary), cells(row), strict=True))
        found.add_row(*(Text(named[heading]) for heading in columns), style="bold" if row.role == WITH else None)
    return found


def headings(summary: Summary) -> list[str]:
    """Of the table of results."""
    last = ["mean ± sd"] if len(summary.seeds) > 1 else ["95 % interval"]
    return ["participant", "role", "reads", *(f"seed {seed}" for seed in summary.seeds), *last, "macro F1", "parameters"]


def cells(row: Row) -> list[str]:
    """A row of the table of results."""
    accuracies = row.values("accuracy")
    if len(accuracies) > 1:
        last = spread(accuracies)
    else:
        last = " to ".join(percent(end) for evaluation in row.evaluations for end in evaluation.accuracy_interval)
    return [
        row.participant,
        row.role,
        row.modality,
        *map(percent, accuracies),
        last,
        spread(row.values("macro_f1")),
        "" if row.parameters is None else f"{row.parameters:,}",
    ]


def percent(value: float) -> str:
    """A fraction in percent, without the sign."""
    return f"{100 * value:.1f}"


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation, in percent."""
    if len(values) < 2:
        return "".join(map(percent, values))
    return f"{percent(float(np.mean(values)))} ± {percent(float(np.std(values, ddof=1)))}"
