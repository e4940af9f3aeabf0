"""The result of distillation without a recipe, with its history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from torch import nn

from kdcore.recipe.graph import StagePlan
from kdcore.runs.callbacks import RunListener

if TYPE_CHECKING:
    from pandas import DataFrame

STUDENT = "student"
"""Name of the student, in batches that are dictionaries and in `taps`."""

SCORES = ("accuracy", "map", "mae")
"""Metrics on the validation loader, one for each kind of target."""


@dataclass
class Distilled:
    """The result of `distil`; a notebook shows the last epochs.

    Args:
        student: The student that was passed, trained, in evaluation mode.
        epochs: The values of each epoch: ``epoch``, ``total`` (the weighted sum), each term by its name, ``learning_rate``, and
            with a validation loader ``accuracy``, or ``map`` or ``mae`` for another target.
    """

    student: nn.Module
    epochs: list[dict[str, float]] = field(default_factory=list)

    @property
    def history(self) -> DataFrame:
        """`epochs` as a table."""
        from pandas import DataFrame

        return DataFrame(self.epochs)

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {value:.4g}" for name, value in self.epochs[-1].items()) if self.epochs else "no epoch"
        return f"Distilled({type(self.student).__name__}; {last})"

    def _repr_html_(self) -> str:
        """The last ten epochs, as a notebook shows them."""
        columns = list(self.epochs[-1]) if self.epochs else []
        head = "".join(f"<th>{escape(name)}</th>" for name in columns)
        rows = "".join(f"<tr>{''.join(f'<td>{each[name]:.4g}</td>' for name in columns)}</tr>" for each in self.epochs[-10:])
        name = escape(type(self.student).__name__)
        return f"<div><b>{name}</b><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"


class EpochHistory(RunListener):
    """Collects the values of each epoch under short names."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def epoch_finished(self, stage: StagePlan, epoch: int, metrics: Mapping[str, float]) -> None:
        """Note an epoch's values."""
        values: dict[str, float] = {"epoch": epoch + 1, "total": metrics[f"train/{STUDENT}/total"]}
        train = f"train/{STUDENT}/"
        values |= {name.removeprefix(train): value for name, value in metrics.items() if name.startswith(train)}
        values["learning_rate"] = metrics[f"learning_rate/{STUDENT}"]
        values |= {name: metrics[key] for name in SCORES if (key := f"validation/{STUDENT}/{name}") in metrics}
        self.epochs.append(values)
