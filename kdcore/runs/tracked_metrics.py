"""Metrics of a run's results, as trackers know them: their names, and their means over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdcore.recipe.plan import BASELINE
from kdcore.runs.outcome import ENSEMBLES, JOINT_TEACHERS, Outcome

if TYPE_CHECKING:
    from kdcore.runs.summary import Summary


def metric_group(split: str, outcome: Outcome, name: str, students: Sequence[str], distilled: Sequence[str]) -> str:
    """Return the prefix of the metrics of a participant's final evaluation.

    ``teacher/skeleton``, ``distilled``, ``baseline``; with several students ``distilled/first``. On another split than
    the test split, ``final/validation/distilled``: ``validation/`` alone is the prefix of each epoch's evaluation.

    Args:
        split: Split that was evaluated.
        outcome: Outcome of the arm.
        name: Participant, or label of an ensemble.
        students: All students of the run.
        distilled: Those with a term that distils.
    """
    if name in outcome.teachers:
        group = f"teacher/{name}"
    elif name == JOINT_TEACHERS:
        group = "teachers"
    else:
        kind = outcome.arm if outcome.arm == BASELINE or name in distilled or (name in ENSEMBLES and distilled) else "student"
        group = kind if len(students) == 1 else f"{kind}/{name}"
    return group if split == "test" else f"final/{split}/{group}"


def means(summary: Summary) -> dict[str, float]:
    """Mean and standard deviation over seeds of every metric of the evaluation, by participant; students first."""
    metrics: dict[str, float] = {}
    for row in reversed(summary.rows):  # MLflow's comparison starts with the metric that comes first
        for metric in row.evaluations[0].metrics():
            values = row.values(metric)
            mean = sum(values) / len(values)
            metrics[f"{row.metrics}/{metric}"] = mean
            if len(values) > 1:
                variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
                metrics[f"{row.metrics}/{metric}_std"] = variance**0.5
    for student, difference in summary.differences.items():
        gain = "gain" if len(summary.differences) == 1 else f"gain/{student}"
        metrics |= {
            f"{gain}/mean": difference.mean,
            f"{gain}/low": difference.low,
            f"{gain}/high": difference.high,
            f"{gain}/conclusive": float(difference.conclusive),
        }
    return metrics
