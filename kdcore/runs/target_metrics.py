"""Metrics of participants that predict multiple labels or numeric values."""

from __future__ import annotations

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdcore.contracts.target import METRICS, THRESHOLD, Metric, Target
from kdcore.runs.metrics import CONFIDENCE, Evaluation, evaluate
from kdcore.training.scores import average_precisions, mean_errors, mean_known, r_squared

RESAMPLES, AT_ONCE = 2_000, 100
"""Number of bootstrap resamples, and how many are computed at once."""

Numbers = NDArray[np.float64]


class _Bootstrapped(ABC):
    """Base class of evaluations whose confidence interval is computed by a bootstrap."""

    labels: NDArray
    recordings: NDArray[np.int64] | None

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.labels)

    @abstractmethod
    def resampled(self, counts: Numbers) -> Numbers:
        """Return the primary metric of R resamples, (R,), in which each sample is repeated `counts` (R, N) times."""

    @cached_property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the primary metric from a percentile bootstrap over samples, or over recordings for windows."""
        groups = np.arange(self.n) if self.recordings is None else self.recordings
        values = np.concatenate([self.resampled(counts) for counts in resamples(groups)])
        tail = (1 - CONFIDENCE) / 2
        low, high = np.nanquantile(values, [tail, 1 - tail]) if not np.isnan(values).all() else (np.nan, np.nan)
        return float(low), float(high)


@dataclass(frozen=True, eq=False)
class LabelEvaluation(_Bootstrapped):
    """Multi-label predictions of one participant for N samples and L labels, with their metrics.

    Args:
        probabilities: Probability of each label, (N, L).
        labels: True labels, (N, L), 0 or 1; -1 if unknown, which is ignored.
        rows: Indices of these samples among all labelled samples, (N,); None for all.
        recordings: Index of the recording that each sample is a window of, (N,); None if each sample is a recording.
    """

    probabilities: Numbers
    labels: NDArray[np.int64]
    rows: NDArray[np.int64] | None = None
    recordings: NDArray[np.int64] | None = None

    primary: Metric = field(default=METRICS["map"], init=False)
    secondary: Metric = field(default=METRICS["macro_f1"], init=False)
    of_output: Metric = field(default=METRICS["average_precision"], init=False)

    @property
    def predictions(self) -> NDArray[np.bool_]:
        """Predicted labels, (N, L): those with a probability of at least `THRESHOLD`."""
        return self.probabilities >= THRESHOLD

    @property
    def outputs(self) -> Numbers:
        """Probabilities, (N, L)."""
        return self.probabilities

    @property
    def support(self) -> NDArray[np.int64]:
        """Number of samples with each label, (L,)."""
        return (self.labels == 1).sum(axis=0)

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """Mask of known labels, (N, L)."""
        return self.labels >= 0

    @cached_property
    def by_output(self) -> Numbers:
        """Average precision of each label, (L,); NaN if no sample has it."""
        return average_precisions(self.probabilities, self.labels)

    @cached_property
    def f1(self) -> Numbers:
        """F1 of each label, (L,); NaN if it occurs neither in the true labels nor in the predictions."""
        right = (self.predictions & (self.labels == 1)).sum(axis=0)
        occurrences = (self.predictions & self.is_known).sum(axis=0) + self.support
        return np.divide(2 * right, occurrences, out=np.full(len(right), np.nan), where=occurrences > 0)

    def metrics(self) -> dict[str, float]:
        """Return the metrics to track: mAP, macro and micro F1, subset accuracy, and loss.

        The subset accuracy is the share of samples with all labels correct, and the loss is the mean binary cross-entropy in
        nats. Unknown labels are ignored.
        """
        is_known = self.is_known
        predicted, true = self.predictions & is_known, self.labels == 1
        total = predicted.sum() + true.sum()
        likelihood = np.where(true, self.probabilities, 1 - self.probabilities)
        return {
            "map": float(mean_known(self.by_output)),
            "macro_f1": float(mean_known(self.f1)),
            "micro_f1": float(2 * (predicted & true).sum() / total) if total else float("nan"),
            "subset_accuracy": float((predicted == true).all(axis=1).mean()),
            "loss": float(-np.log(np.maximum(likelihood[is_known], np.finfo(np.float64).tiny)).mean()),
        }

    @property
    def constant(self) -> tuple[float, str]:
        """mAP of a constant prediction, which is the mean prevalence of the labels, and a description; NaN without labels."""
        share = self.support / np.maximum(self.is_known.sum(axis=0), 1)
        return float(mean_known(np.where(share > 0, share, np.nan))), "by the same prediction for every sample"

    def resampled(self, counts: Numbers) -> Numbers:
        """Return the mAP of R resamples, (R,)."""
        return mean_known(average_precisions(self.probabilities, self.labels, counts))


@dataclass(frozen=True, eq=False)
class ValueEvaluation(_Bootstrapped):
    """Estimates of one participant for V values of N samples, with their metrics.

    Args:
        outputs: Estimates in the units of the values, (N, V).
        labels: True values, (N, V); NaN if unknown, which is ignored.
        names: Names of the values.
        target: Target with units, and with the mean of each value over the training samples.
        rows: Indices of these samples among all labelled samples, (N,); None for all.
        recordings: Index of the recording that each sample is a window of, (N,); None if each sample is a recording.
    """

    outputs: Numbers
    labels: Numbers
    names: Sequence[str]
    target: Target
    rows: NDArray[np.int64] | None = None
    recordings: NDArray[np.int64] | None = None

    @property
    def primary(self) -> Metric:
        """MAE, or R² for values in different units."""
        return self.target.metric(self.target.primary)

    @property
    def secondary(self) -> Metric:
        """R²."""
        return METRICS["r2"]

    @property
    def of_output(self) -> Metric:
        """Metric of each value: MAE, or R² for values in different units."""
        return self.primary

    @property
    def support(self) -> NDArray[np.int64]:
        """Number of samples with each value known, (V,)."""
        return self.is_known.sum(axis=0)

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """Mask of known values, (N, V)."""
        return ~np.isnan(self.labels)

    @property
    def by_output(self) -> Numbers:
        """MAE of each value, or R² for values in different units, (V,)."""
        return self.mae if self.primary.name == "mae" else self.r2

    @cached_property
    def mae(self) -> Numbers:
        """Mean absolute error of each value, (V,)."""
        return mean_errors(np.abs(self.outputs - self.labels))

    @cached_property
    def rmse(self) -> Numbers:
        """Root mean squared error of each value, (V,)."""
        return np.sqrt(mean_errors((self.outputs - self.labels) ** 2))

    @cached_property
    def r2(self) -> Numbers:
        """Coefficient of determination of each value, (V,); NaN if all true values are equal."""
        return r_squared(self.outputs, self.labels)

    def metrics(self) -> dict[str, float]:
        """Return the metrics to track: means of MAE, RMSE and R², and, for several values, those of each value.

        MAE and RMSE have no mean over values in different units. Unknown values are ignored.
        """
        kinds = {"mae": self.mae, "rmse": self.rmse, "r2": self.r2}
        mixed_units = self.target.unit is None
        result = {name: float(mean_known(each)) for name, each in kinds.items() if name == "r2" or not mixed_units}
        result = {self.primary.name: result[self.primary.name], **result}
        if len(self.names) > 1:
            for name, each in kinds.items():
                result |= {
                    f"{name}/{value_name}": float(value) for value_name, value in zip(trackable(self.names), each, strict=True)
                }
        return result

    @property
    def constant(self) -> tuple[float, str]:
        """Primary metric of always predicting the mean of the training samples, and a description."""
        mean = np.broadcast_to(np.asarray(self.target.mean or mean_known(self.labels.T)), self.labels.shape)
        baseline = ValueEvaluation(mean, self.labels, self.names, self.target)
        return baseline.metrics()[self.primary.name], "by always estimating the mean of the training samples"

    def resampled(self, counts: Numbers) -> Numbers:
        """Return the primary metric of R resamples, (R,)."""
        if self.primary.name == "r2":
            return mean_known(r_squared(self.outputs, self.labels, counts))
        return mean_known(mean_errors(np.abs(self.outputs - self.labels), counts))


AnyEvaluation = Evaluation | LabelEvaluation | ValueEvaluation


def evaluate_target(
    target: Target, names: Sequence[str], outputs: ArrayLike, labels: ArrayLike, recordings: ArrayLike | None = None
) -> AnyEvaluation:
    """Evaluate predictions for any kind of target.

    Args:
        target: Kind of target, with units.
        names: Names of the classes, labels or values.
        outputs: Class probabilities, label probabilities, or values in their units, (N, names).
        labels: Class indices, (N,), or labels or values, (N, names), NaN if unknown. Labels may also be -1 if unknown.
        recordings: Identifier of the recording that each sample is a window of, (N,). Default: each sample is a recording.

    Raises:
        ValueError: If a shape, probability or label is invalid, or there are no samples.
    """
    if target.is_classes:
        return evaluate(outputs, labels, recordings)
    predicted, true = np.asarray(outputs, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if predicted.ndim != 2 or 0 in predicted.shape or true.shape != predicted.shape:
        raise ValueError(
            f"predictions and {target.kind} must have the same shape (samples, names), not {predicted.shape} and {true.shape}"
        )
    if target.kind == "labels":
        true = np.where(np.isnan(true), -1.0, true)
    if not np.isfinite(predicted).all() or np.isinf(true).any() or np.isnan(true).all():
        raise ValueError(f"predictions and {target.kind} must be finite numbers")
    groups = None if recordings is None else np.unique(np.asarray(recordings), return_inverse=True)[1].reshape(-1)
    if target.kind == "values":
        return ValueEvaluation(predicted, true, tuple(names), target, recordings=groups)
    if predicted.min() < 0 or predicted.max() > 1 or not np.isin(true, (-1, 0, 1)).all():
        raise ValueError("probabilities must be between 0 and 1, and labels must be 0 or 1")
    return LabelEvaluation(predicted, true.astype(np.int64), recordings=groups)


def pool(evaluations: Sequence[AnyEvaluation]) -> AnyEvaluation:
    """Combine the samples of several evaluations into one."""
    outputs, labels = (np.concatenate([getattr(each, name) for each in evaluations]) for name in ("outputs", "labels"))
    return _like(evaluations[0], outputs, labels)


def part_of(evaluation: AnyEvaluation, chosen: NDArray) -> AnyEvaluation:
    """Return the evaluation of a subset of samples.

    Args:
        evaluation: Evaluation of all samples.
        chosen: Boolean mask, (N,), or indices of samples.
    """
    return _like(evaluation, evaluation.outputs[chosen], evaluation.labels[chosen])


def _like(evaluation: AnyEvaluation, outputs: Numbers, labels: NDArray) -> AnyEvaluation:
    if isinstance(evaluation, ValueEvaluation):
        return evaluate_target(evaluation.target, evaluation.names, outputs, labels)
    return evaluate_target(Target("classes" if isinstance(evaluation, Evaluation) else "labels"), (), outputs, labels)


def resamples(groups: NDArray[np.int64]) -> Iterator[Numbers]:
    """Yield bootstrap resamples of whole groups from a fixed seed, as counts of each sample, (R, N), `RESAMPLES` rows in total.

    Args:
        groups: Group of each sample, (N,), numbered from 0.
    """
    random, count = np.random.default_rng(0), int(groups.max()) + 1
    for first in range(0, RESAMPLES, AT_ONCE):
        drawn = random.multinomial(count, np.full(count, 1 / count), size=min(AT_ONCE, RESAMPLES - first))
        yield drawn.astype(np.float64)[:, groups]


def trackable(names: Sequence[str]) -> list[str]:
    """Return unique names with only the characters that are valid in metric names.

    A name that could be another one's standard deviation, such as ``height_std`` for ``height``, counts as a duplicate.
    """
    plain = [re.sub(r"[^\w. -]", "_", unicodedata.normalize("NFC", name)) for name in names]
    unique: list[str] = []
    for number, name in enumerate(plain, start=1):
        others = {*unique, *plain[: number - 1], *plain[number:]}
        taken = others | {f"{other}_std" for other in others}
        while name in taken:
            name = f"{name}-{number}"
        unique.append(name)
    return unique
