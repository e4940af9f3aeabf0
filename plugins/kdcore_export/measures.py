"""Differences between the outputs of an exported file and its source, and the metrics of both."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kdcore import Predictor, Target, evaluate_target
from kdcore_export.clips import Clips

TOLERANCE = 1e-4
"""Maximum difference between the outputs of a file and PyTorch, in logits and in probabilities."""

CERTAIN = 0.5
"""Probability at or above which a label is predicted."""

Outputs = list[tuple[np.ndarray, np.ndarray]]
"""Logits and answers (probabilities, or values in their units) of each recording."""


def difference(outputs: Outputs, reference: Outputs, target: Target | None = None) -> float:
    """Return the largest difference in logits or probabilities, for values in standard deviations; NaN if any is NaN."""
    scales = (1.0, np.asarray(target.std) if target and target.std else 1.0)
    gaps = [
        (np.abs(a - b) / scale).max()
        for pair, other in zip(outputs, reference, strict=True)
        for a, b, scale in zip(pair, other, scales, strict=True)
    ]
    return float(np.max(gaps))


def agreement(predictor: Predictor, clips: Clips, outputs: Outputs, reference: Outputs) -> str:
    """Return a line on the agreement of an exported file with its student: share of equal predictions, or change of values."""
    target, count = predictor.target, len(outputs)
    here, there = (np.concatenate([each[1] for each in answers]) for answers in (outputs, reference))
    if target.is_classes:
        same = float((here.argmax(1) == there.argmax(1)).mean())
        return f"agreement   {same:.1%} of {count} predictions unchanged ({clips.what})"
    if target.kind == "labels":
        same = float(((here >= CERTAIN) == (there >= CERTAIN)).mean())
        return f"agreement   {same:.1%} of {here.size} label decisions unchanged ({count} {clips.what})"
    return f"change      {', '.join(_moved(predictor, np.abs(here - there)))} ({count} {clips.what})"


def _moved(predictor: Predictor, gaps: np.ndarray) -> Iterator[str]:
    units = predictor.target.units or ("",) * len(predictor.classes)
    for name, unit, mean, most in zip(predictor.classes, units, gaps.mean(0), gaps.max(0), strict=True):
        yield f"{name} by {f'{mean:.3g} {unit}'.strip()} on average, {f'{most:.3g} {unit}'.strip()} at most"


def score(predictor: Predictor, clips: Clips, outputs: Outputs, reference: Outputs, other: str) -> tuple[str, str] | None:
    """Return the name of the primary metric, and its value for both as text; None if no target is known.

    Args:
        predictor: The student.
        clips: Recordings with targets.
        outputs: Outputs of the file.
        reference: Outputs of its source.
        other: Name of the source.
    """
    known = [number for number, label in enumerate(clips.labels) if label is not None]
    if not known:
        return None
    labels = np.array([clips.labels[number] for number in known])
    answers = [np.concatenate([each[number][1] for number in known]) for each in (outputs, reference)]
    if predictor.target.is_classes:
        here, there = (float((each.argmax(1) == labels).mean()) for each in answers)
        return "accuracy", f"{here:.2%} ({other} {there:.2%}), n {len(known)}, {clips.what}"
    found = [evaluate_target(predictor.target, predictor.classes, each, labels) for each in answers]
    metric = found[0].primary
    texts = [f"{metric.text(each.metrics()[metric.name])} {metric.unit}".strip() for each in found]
    return metric.title, f"{texts[0]} ({other} {texts[1]}), n {len(known)}, {clips.what}"
