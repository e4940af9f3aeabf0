"""Metrics of participants that predict several labels, or values."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdcore.contracts.target import METRICS, THRESHOLD, Metric, Target
from kdcore.runs.metrics import CONFIDENCE, Evaluation, evaluate
from kdcore.training.scores import average_precisions, mean_errors, mean_known, r_squared

RESAMPLES, AT_ONCE = 2_000, 100
"""Resamples of a bootstrap, and how many of them are computed together."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LabelEvaluation:
    """One participant's answers to N samples that may have any of L labels, and what they are worth.

    Args:
        probabilities: (N, L) of each label.
        labels: (N, L), 0 or 1; -1 where it is not known: that sample does not count for that label.
        rows: (N,) places of these samples among all labelled ones; None for all of them.
        recordings: (N,) the recording that each sample is a window of, 0, 1, …; None if every sample has its own.
    """

    probabilities: Numbers
    labels: NDArray[np.int64]
    rows: NDArray[np.int64] | None = None
    recordings: NDArray[np.int64] | None = None

    primary: Metric = field(default=METRICS["map"], init=False)
    secondary: Metric = field(default=METRICS["macro_f1"], init=False)
    of_output: Metric = field(default=METRICS["average_precision"], init=False)

    @property
    def n(self) -> int:
        """The number of samples."""
        return len(self.labels)

    @property
    def predictions(self) -> NDArray[np.bool_]:
        """(N, L) which labels are predicted: those with a probability of at least `THRESHOLD`."""
        return self.probabilities >= THRESHOLD

    @property
    def answers(self) -> Numbers:
        """(N, L) probabilities."""
        return self.probabilities

    @property
    def having(self) -> NDArray[np.int64]:
        """(L,) samples that have each label."""
        return (self.labels == 1).sum(axis=0)

    @property
    def told(self) -> NDArray[np.bool_]:
        """(N, L) which labels are known."""
        return self.labels >= 0

    @cached_property
    def by_output(self) -> Numbers:
        """(L,) average precision of each label; NaN where no sample has it."""
        return average_precisions(self.probabilities, self.labels)

    @cached_property
    def f1(self) -> Numbers:
        """(L,) F1 of each label; NaN where it occurs neither among labels nor among predictions."""
        right = (self.predictions & (self.labels == 1)).sum(axis=0)
        occurrences = (self.predictions & self.told).sum(axis=0) + self.having
        return np.divide(2 * right, occurrences, out=np.full(len(right), np.nan), where=occurrences > 0)

    def metrics(self) -> dict[str, float]:
        """The numbers to track: mAP, macro and micro F1, the share of samples with all labels right, and the loss.

        The loss is the mean binary cross-entropy in nats. Labels that are not known do not count.
        """
        told = self.told
        predicted, true = self.predictions & told, self.labels == 1
        both = predicted.sum() + true.sum()
        own = np.where(true, self.probabilities, 1 - self.probabilities)
        return {
            "map": float(mean_known(self.by_output)),
            "macro_f1": float(mean_known(self.f1)),
            "micro_f1": float(2 * (predicted & true).sum() / both) if both else float("nan"),
            "subset_accuracy": float((predicted == true).all(axis=1).mean()),
            "loss": float(-np.log(np.maximum(own[told], np.finfo(np.float64).tiny)).mean()),
        }

    @property
    def constant(self) -> tuple[float, str]:
        """mAP of an answer that is the same for all samples: the mean share of samples that have a label; NaN if none has."""
        share = self.having / np.maximum(self.told.sum(axis=0), 1)
        return float(mean_known(np.where(share > 0, share, np.nan))), "by the same prediction for every sample"

    def resampled(self, counts: Numbers) -> Numbers:
        """(R,) mAP of R resamples, in which each sample counts `counts` (R, N) times."""
        return mean_known(average_precisions(self.probabilities, self.labels, counts))

    @cached_property
    def interval(self) -> tuple[float, float]:
        """95 % interval of mAP, by a percentile bootstrap over samples, or over the recordings of windows."""
        return bootstrap_interval(self)


@dataclass(frozen=True, eq=False)
class ValueEvaluation:
    """One participant's estimates of V values of N samples, and what they are worth.

    Args:
        answers: (N, V) estimates, in the values' units.
        labels: (N, V) true values, NaN where not known: that sample does not count for that value.
        names: Of the values.
        target: With units, and with the mean of each value over the training samples.
        rows: (N,) places of these samples among all labelled ones; None for all of them.
        recordings: (N,) the recording that each sample is a window of, 0, 1, …; None if every sample has its own.
    """

    answers: Numbers
    labels: Numbers
    names: Sequence[str]
    target: Target
    rows: NDArray[np.int64] | None = None
    recordings: NDArray[np.int64] | None = None

    @property
    def n(self) -> int:
        """The number of samples."""
        return len(self.labels)

    @property
    def primary(self) -> Metric:
        """MAE, or R² for values of several units."""
        return self.target.metric(self.target.primary)

    @property
    def secondary(self) -> Metric:
        """R², or else MAE of the values, each in its unit, of which there is no mean."""
        return METRICS["r2"]

    @property
    def of_output(self) -> Metric:
        """The metric of each value: MAE, or R² for values of several units."""
        return self.primary

    @property
    def having(self) -> NDArray[np.int64]:
        """(V,) samples of which each value is known."""
        return self.told.sum(axis=0)

    @property
    def told(self) -> NDArray[np.bool_]:
        """(N, V) which values are known."""
        return ~np.isnan(self.labels)

    @property
    def by_output(self) -> Numbers:
        """(V,) MAE of each value, or R² for values of several units."""
        return self.mae if self.primary.name == "mae" else self.r2

    @cached_property
    def mae(self) -> Numbers:
        """(V,) mean absolute error."""
        return mean_errors(np.abs(self.answers - self.labels))

    @cached_property
    def rmse(self) -> Numbers:
        """(V,) root of the mean squared error."""
        return np.sqrt(mean_errors((self.answers - self.labels) ** 2))

    @cached_property
    def r2(self) -> Numbers:
        """(V,) coefficient of determination; NaN where all true values are equal."""
        return r_squared(self.answers, self.labels)

    def metrics(self) -> dict[str, float]:
        """The numbers to track: MAE, RMSE and R², of each value where there are several, and their means.

        Of values in several units, MAE and RMSE have no mean. What is not known does not count.
        """
        kinds = {"mae": self.mae, "rmse": self.rmse, "r2": self.r2}
        several = self.target.unit is None
        found = {name: float(mean_known(each)) for name, each in kinds.items() if name == "r2" or not several}
        found = {self.primary.name: found[self.primary.name], **found}
        if len(self.names) > 1:
            for name, each in kinds.items():
                found |= {f"{name}/{of}": float(value) for of, value in zip(trackable(self.names), each, strict=True)}
        return found

    @property
    def constant(self) -> tuple[float, str]:
        """The primary metric of an answer that is always the mean of the training samples."""
        mean = np.broadcast_to(np.asarray(self.target.mean or mean_known(self.labels.T)), self.labels.shape)
        same = ValueEvaluation(mean, self.labels, self.names, self.target)
        return same.metrics()[self.primary.name], "by always estimating the mean of the training samples"

    def resampled(self, counts: Numbers) -> Numbers:
        """(R,) the primary metric of R resamples, in which each sample counts `counts` (R, N) times."""
        if self.primary.name == "r2":
            return mean_known(r_squared(self.answers, self.labels, counts))
        return mean_known(mean_errors(np.abs(self.answers - self.labels), counts))

    @cached_property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the primary metric, by a percentile bootstrap over samples, or over the recordings of windows."""
        return bootstrap_interval(self)


AnyEvaluation = Evaluation | LabelEvaluation | ValueEvaluation


def evaluate_target(
    target: Target, names: Sequence[str], answers: ArrayLike, labels: ArrayLike, recordings: ArrayLike | None = None
) -> AnyEvaluation:
    """Evaluate predictions for any kind of target.

    Args:
        target: The form of the labels.
        names: Of the classes, labels or values.
        answers: (N, names): class probabilities, probabilities of labels, or values in their units.
        labels: (N,) class indices, or (N, names) with NaN where a label or a value is not known; -1 is no known label, too.
        recordings: (N,) which recording each sample is a window of, any values; by default, every sample has its own.

    Raises:
        ValueError: If shapes, probabilities or labels are not as above, or there are no samples.
    """
    if target.is_classes:
        return evaluate(answers, labels, recordings)
    given, true = np.asarray(answers, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if given.ndim != 2 or 0 in given.shape or true.shape != given.shape:
        raise ValueError(
            f"predictions and {target.kind} must have the same shape (samples, names), not {given.shape} and {true.shape}"
        )
    if target.kind == "labels":
        true = np.where(np.isnan(true), -1.0, true)
    if not np.isfinite(given).all() or np.isinf(true).any() or np.isnan(true).all():
        raise ValueError(f"predictions and {target.kind} must be finite numbers")
    groups = None if recordings is None else np.unique(np.asarray(recordings), return_inverse=True)[1].reshape(-1)
    if target.kind == "values":
        return ValueEvaluation(given, true, tuple(names), target, recordings=groups)
    if given.min() < 0 or given.max() > 1 or not np.isin(true, (-1, 0, 1)).all():
        raise ValueError("probabilities must lie between 0 and 1, and labels be 0 or 1")
    return LabelEvaluation(given, true.astype(np.int64), recordings=groups)


def pool(found: Sequence[AnyEvaluation]) -> AnyEvaluation:
    """The evaluation of all answers of several evaluations together."""
    answers, labels = (np.concatenate([getattr(each, name) for each in found]) for name in ("answers", "labels"))
    return _like(found[0], answers, labels)


def part_of(found: AnyEvaluation, chosen: NDArray) -> AnyEvaluation:
    """The evaluation of some samples alone.

    Args:
        found: Of all.
        chosen: (N,) bool, or places of samples.
    """
    return _like(found, found.answers[chosen], found.labels[chosen])


def _like(found: AnyEvaluation, answers: Numbers, labels: NDArray) -> AnyEvaluation:
    if isinstance(found, ValueEvaluation):
        return evaluate_target(found.target, found.names, answers, labels)
    return evaluate_target(Target("classes" if isinstance(found, Evaluation) else "labels"), (), answers, labels)


def resamples(groups: NDArray[np.int64]) -> Iterator[Numbers]:
    """Bootstrap resamples of whole groups, always the same: how often each sample counts, (R, N), `RESAMPLES` rows in all.

    Args:
        groups: (N,) 0, 1, …, the group of each sample.
    """
    random, count = np.random.default_rng(0), int(groups.max()) + 1
    for first in range(0, RESAMPLES, AT_ONCE):
        drawn = random.multinomial(count, np.full(count, 1 / count), size=min(AT_ONCE, RESAMPLES - first))
        yield drawn.astype(np.float64)[:, groups]


def bootstrap_interval(found: LabelEvaluation | ValueEvaluation) -> tuple[float, float]:
    """95 % interval of the primary metric, by a percentile bootstrap over samples, or over the recordings of windows."""
    groups = np.arange(found.n) if found.recordings is None else found.recordings
    values = np.concatenate([found.resampled(counts) for counts in resamples(groups)])
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail]) if not np.isnan(values).all() else (np.nan, np.nan)
    return float(low), float(high)


def trackable(names: Sequence[str]) -> list[str]:
    """Names without the characters that a metric's name has for itself, different for different names.

    A name that stands for another one's standard deviation, as ``height_std`` beside ``height``, counts as the same.
    """
    plain = [re.sub(r"[^\w. -]", "_", unicodedata.normalize("NFC", name)) for name in names]
    found: list[str] = []
    for number, name in enumerate(plain, start=1):
        others = {*found, *plain[: number - 1], *plain[number:]}
        taken = others | {f"{other}_std" for other in others}
        while name in taken:
            name = f"{name}-{number}"
        found.append(name)
    return found
