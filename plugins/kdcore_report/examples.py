"""Notable samples with the predictions of all participants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from kdcore import THRESHOLD, DataError, Modality, Outcome, RunContext, Signal, Target, known
from kdcore_report.saliency import BASELINE, DISTILLED, Explainer
from kdcore_report.saliency_plots import Saliency

MOST = 4

Kind = tuple[str, np.ndarray, np.ndarray, int]
"""Notable samples: the reason, the number by which they are ordered (largest first), their mask and how many to show."""


@dataclass(frozen=True)
class Prediction:
    """Prediction of a participant for a sample.

    Args:
        participant: Name of the participant.
        text: Predicted class, labels or values.
        correct: Whether it is correct; None for values.
        number: Confidence, probabilities of labels, or errors of values.
    """

    participant: str
    text: str
    correct: bool | None
    number: str


@dataclass(frozen=True)
class Example:
    """A sample with its predictions and plots.

    Args:
        key: Key of the sample.
        label: Its class, labels or values.
        why: Reason why it is notable.
        predictions: Predictions of all participants.
        recordings: Recorded signals by modality.
        inputs: Encoder inputs, (channel, height, width), by participant, if signals are encoded as images.
        saliency: Saliency maps of all participants.
    """

    key: str
    label: str
    why: str
    predictions: Sequence[Prediction]
    recordings: Mapping[str, tuple[Modality, Signal]] = field(default_factory=dict)
    inputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    saliency: Sequence[Saliency] = ()


def gather_examples(run: RunContext, seed: int, outcomes: Mapping[str, Outcome]) -> list[Example]:
    """Return some samples of a seed, starting with those that the student predicts correctly only with distillation.

    Args:
        run: The run, whose dataset is read.
        seed: Seed whose predictions are shown.
        outcomes: Outcomes of the seed by arm.

    Returns:
        The examples.
    """
    table, explainer = run.table, Explainer(run, seed, outcomes)
    samples = {sample.key: sample for sample in table.splits.samples[run.split]}
    rows, found = table.rows[run.split], []
    for index, why in chosen(outcomes).items():
        key = table.keys[int(rows[index])]
        try:
            recordings = _recordings(run, samples[replace(key, window=0)])
        except DataError:
            continue
        words = InWords(table.classes, table.target, outcomes[DISTILLED].labels[index])
        predictions = [words.prediction(participant, given) for participant, given in _predictions(outcomes, index)]
        inputs = _inputs(run, rows[index : index + 1])
        saliency = explainer.explain(index)
        found.append(Example(str(key), words.truth, why, predictions, recordings, inputs, saliency))
    return found


def chosen(outcomes: Mapping[str, Outcome], most: int = MOST) -> dict[int, str]:
    """Return the reasons why rows are notable, for at most `most` rows.

    For classes, the most confident predictions come first. For labels and values, those with the largest difference in error;
    see `sample_errors`.
    """
    after = outcomes[DISTILLED]
    both = [name for name in after.students if BASELINE in outcomes and name in outcomes[BASELINE].students]
    student, before = (both or after.students)[0], outcomes[BASELINE] if both else after
    kinds = _by_correctness(before, after, student) if after.target.is_classes else _by_error(before, after, student)
    available: np.ndarray = known(after.labels)
    for name in after.teachers:
        available = available & ~np.isnan(after.probabilities[name]).any(1)  # every displayed prediction must exist
    found: dict[int, str] = {}
    for why, order, which, number in kinds:
        rows = [row for row in np.argsort(-order, kind="stable").tolist() if available[row] and which[row] and row not in found]
        found |= dict.fromkeys(rows[:number], why)
    return dict(list(found.items())[:most])


def _by_correctness(before: Outcome, after: Outcome, student: str) -> list[Kind]:
    """Return kinds of notable samples by correctness without distillation (`before`) and with it."""
    old, new = _correct(before, student), _correct(after, student)
    knew = _correct(after, *after.joint_teachers) if after.joint_teachers else np.zeros_like(new)
    sure = after.probabilities[student].max(axis=1)
    return [
        ("The teachers and the distilled student are correct, the baseline is wrong", sure, knew & ~old & new, 2),
        ("Only the distilled student is correct", sure, ~old & new, 1),
        ("Only the baseline is correct", sure, old & ~new, 1),
        ("The student is wrong", sure, ~new, 1),
        ("The student is correct", sure, new, 1),
    ]


def _by_error(before: Outcome, after: Outcome, student: str) -> list[Kind]:
    """Return kinds of notable samples by the student's error without distillation (`before`) and with it."""
    error = sample_errors(after, student)
    gain = sample_errors(before, student) - error
    return [
        ("Distillation reduces the error most", gain, gain > 0, 2),
        ("Distillation increases the error most", -gain, gain < 0, 1),
        ("The student's error is largest", error, np.ones_like(error, bool), 1),
        ("The student's error is smallest", -error, np.ones_like(error, bool), 1),
    ]


def _correct(outcome: Outcome, *names: str) -> np.ndarray:
    """Return a mask of the samples that all of these participants predict correctly."""
    return np.mean([outcome.probabilities[name] for name in names], axis=0).argmax(1) == outcome.labels


@dataclass(frozen=True, eq=False)
class InWords:
    """Formats targets and predictions of samples as text.

    Args:
        classes: Names of the classes, labels or values.
        target: Kind of target, with units.
        true: Class index, or numbers, (names,).
    """

    classes: Sequence[str]
    target: Target
    true: Any

    @property
    def truth(self) -> str:
        """Return the class, the labels, or the values with their units."""
        return self.classes[int(self.true)] if self.target.is_classes else self._numbers(np.asarray(self.true))

    def prediction(self, participant: str, given: np.ndarray) -> Prediction:
        """Return a participant's prediction, (names,), as text."""
        if self.target.is_classes:
            predicted = int(given.argmax())
            confidence = f"{100 * float(given.max()):.1f}"
            return Prediction(participant, self.classes[predicted], predicted == int(self.true), confidence)
        true = np.asarray(self.true)
        if self.target.kind == "labels":
            predicted = given >= THRESHOLD
            shown: list[int] = np.flatnonzero(predicted | (true == 1)).tolist()
            numbers = ", ".join(f"{self.classes[index]} {100 * given[index]:.1f}" for index in shown)
            correct = bool((predicted == (true == 1))[~np.isnan(true)].all())
            return Prediction(participant, self._numbers(predicted), correct, numbers or "–")
        errors = ("–" if each != each else f"{each:+.4g}" for each in (given - true).tolist())
        return Prediction(participant, self._numbers(given), None, ", ".join(errors))

    def _numbers(self, numbers: np.ndarray) -> str:
        if self.target.kind == "labels":
            pairs = list(zip(self.classes, numbers, strict=True))
            unknown = ", ".join(name for name, each in pairs if each != each)
            return (", ".join(name for name, each in pairs if each == 1) or "none") + (
                f"; {unknown} unknown" if unknown else ""
            )
        units = self.target.units or ("",) * len(self.classes)
        several = len(self.classes) > 1
        pairs = zip(self.classes, numbers, units, strict=True)
        return ", ".join(
            f"{f'{name} ' if several else ''}{'unknown' if each != each else f'{each:.4g} {unit}'}".strip()
            for name, each, unit in pairs
        )


def sample_errors(outcome: Outcome, name: str) -> np.ndarray:
    """Return the error of each sample, (n,): mean binary cross-entropy of labels, or mean absolute error in std. deviations."""
    given, true = outcome.probabilities[name].astype(np.float64), outcome.labels
    if outcome.target.kind == "values":
        losses = np.abs((given - true) / np.asarray(outcome.target.std or 1.0))
    else:
        losses = -np.log(np.maximum(np.where(true == 1, given, 1 - given), np.finfo(np.float64).tiny))
    is_known = ~np.isnan(true)
    return np.where(is_known, losses, 0.0).sum(axis=1) / np.maximum(is_known.sum(axis=1), 1)


def _predictions(outcomes: Mapping[str, Outcome], index: int) -> list[tuple[str, np.ndarray]]:
    after = outcomes[DISTILLED]
    predictions = [(name, after.probabilities[name][index]) for name in after.teachers]
    arm = ", distilled" if BASELINE in outcomes else ""
    if BASELINE in outcomes:
        alone = outcomes[BASELINE]
        predictions += [(f"{name}, baseline", alone.probabilities[name][index]) for name in alone.students]
    predictions += [(f"{name}{arm}", after.probabilities[name][index]) for name in after.students]
    return predictions


def _recordings(run: RunContext, sample) -> dict[str, tuple[Modality, Signal]]:
    names = dict.fromkeys(name for spec in run.assembly.specs.values() for name in spec.modalities)
    return {name: (run.assembly.dataset.modalities[name], run.assembly.dataset.read(sample, name)) for name in names}


@torch.no_grad()
def _inputs(run: RunContext, row: torch.Tensor) -> dict[str, np.ndarray]:
    """Return inputs of participants whose signals are encoded as images, each kind of image once."""
    found: dict[str, np.ndarray] = {}
    for name, pipeline in run.assembly.pipelines.items():
        if pipeline.axes & {"height", "joint"}:
            continue
        signal = run.table.batch(row, [name]).signals[name]
        values = pipeline.batch_transforms.to(row.device).eval()(signal)[0].float().cpu().numpy()
        if values.ndim == 3:
            found[name] = values
    return found
