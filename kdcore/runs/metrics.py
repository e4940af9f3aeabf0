"""Metrics of a participant on the test samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdcore.contracts.target import METRICS, Metric

CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One participant's predictions for N samples of C classes, and their metrics.

    Args:
        probabilities: (N, C) class probabilities.
        labels: (N,) true class indices.
        rows: (N,) indices of these samples among all labelled ones; None for all of them.
        recordings: (N,) index of the recording that each sample is a window of; None if there are no windows.
    """

    probabilities: NDArray[np.float64]
    labels: NDArray[np.int64]
    rows: NDArray[np.int64] | None = None
    recordings: NDArray[np.int64] | None = None

    primary: Metric = field(default=METRICS["accuracy"], init=False)
    secondary: Metric = field(default=METRICS["macro_f1"], init=False)
    of_output: Metric = field(default=METRICS["recall"], init=False)

    @property
    def n(self) -> int:
        """The number of samples."""
        return len(self.labels)

    @property
    def outputs(self) -> NDArray[np.float64]:
        """(N, C) class probabilities."""
        return self.probabilities

    @cached_property
    def predictions(self) -> NDArray[np.int64]:
        """(N,) predicted class indices."""
        return self.probabilities.argmax(axis=1)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(N,) bool, True for correct predictions."""
        return self.predictions == self.labels

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """(C, C) counts; row = true class, column = predicted class."""
        counts = np.zeros((self.probabilities.shape[1],) * 2, dtype=np.int64)
        np.add.at(counts, (self.labels, self.predictions), 1)
        return counts

    @property
    def support(self) -> NDArray[np.int64]:
        """(C,) samples of each class."""
        return self.confusion.sum(axis=1)

    @property
    def by_output(self) -> NDArray[np.float64]:
        """(C,) recall of each class; NaN for a class without samples."""
        right, support = self.confusion.diagonal(), self.support
        return np.divide(right, support, out=np.full(len(right), np.nan), where=support > 0)

    @cached_property
    def accuracy(self) -> float:
        """Fraction of correct predictions."""
        return float(self.confusion.diagonal().sum() / self.n)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the accuracy. For windows, N is replaced by `effective_count`."""
        count = self.n if self.recordings is None else effective_count(self.correct, self.recordings)
        return wilson_interval(self.accuracy * count, count)

    @cached_property
    def macro_f1(self) -> float:
        """F1 averaged over the classes that occur among labels or predictions."""
        occurrences = self.confusion.sum(axis=0) + self.support
        seen = occurrences > 0
        return float((2 * self.confusion.diagonal()[seen] / occurrences[seen]).mean())

    @cached_property
    def loss(self) -> float:
        """Mean negative log-likelihood of the true class, in nats."""
        likelihoods = self.probabilities[np.arange(self.n), self.labels]
        return float(-np.log(np.maximum(likelihoods, np.finfo(np.float64).tiny)).mean())

    @property
    def constant(self) -> tuple[float, str]:
        """Accuracy of always predicting the most frequent class."""
        return float(self.support.max() / self.n), "by always predicting the most frequent class"

    def metrics(self) -> dict[str, float]:
        """The numbers to track."""
        return {"accuracy": self.accuracy, "macro_f1": self.macro_f1, "loss": self.loss}


def evaluate(probabilities: ArrayLike, labels: ArrayLike, recordings: ArrayLike | None = None) -> Evaluation:
    """Evaluate class probabilities.

    Args:
        probabilities: (N, C), rows that sum to 1.
        labels: (N,) class indices, 0 to C - 1.
        recordings: (N,) recording that each sample is a window of, any values; None if there are no windows.

    Raises:
        ValueError: If shapes, probabilities or labels are not as above, or there are no samples.
    """
    p, y = _probabilities(probabilities), np.asarray(labels)
    groups = None if recordings is None else np.unique(np.asarray(recordings), return_inverse=True)[1].reshape(-1)
    if groups is not None and groups.shape != y.shape:
        raise ValueError(f"recordings must be {len(p)} values, one per row of probabilities, not {len(groups)}")
    if y.shape != p.shape[:1] or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"labels must be {len(p)} integers, one per row of probabilities, not {y.dtype} {y.shape}")
    if y.min() < 0 or y.max() >= p.shape[1]:
        raise ValueError(f"labels must lie in 0 … {p.shape[1] - 1}, found {y.min()} … {y.max()}")
    return Evaluation(p, y.astype(np.int64), recordings=groups)


def effective_count(correct: ArrayLike, recordings: ArrayLike) -> float:
    """Effective sample size: independent samples whose accuracy is as certain as that of N windows of G recordings.

    Windows of one recording are correlated, the more so if they overlap. With :math:`c_i` for the correctness of window i,
    :math:`\\hat p` for its mean, and :math:`z_g = \\sum_{i \\in g} (c_i - \\hat p)` for recording g:

    .. math::

        n = \\frac{\\hat p (1 - \\hat p)}{\\frac{G}{G - 1} \\sum_g z_g^2 / N^2}
            \\left(\\frac{z_{0.975}}{t_{0.975, G-1}}\\right)^2

    at most N; G if all windows are right, or all wrong.

    Source: Korn and Graubard, "Confidence Intervals for Proportions with Small Expected Number of Positive Counts Estimated
    from Survey Data", Survey Methodology 1998.

    Args:
        correct: (N,) bool, correct predictions.
        recordings: (N,) index of each window's recording, from 0.
    """
    right, groups = np.asarray(correct, dtype=np.float64), np.asarray(recordings)
    share, size, count = right.mean(), len(right), int(groups.max()) + 1
    if count < 2 or share in (0.0, 1.0):
        return float(count)
    variance = count / (count - 1) * (np.bincount(groups, right - share) ** 2).sum() / size**2
    from scipy import special

    quantile = (1 + CONFIDENCE) / 2
    few = special.ndtri(quantile) / special.stdtrit(count - 1, quantile)
    return float(min(size, few**2 * share * (1 - share) / variance)) if variance > 0 else float(size)


def wilson_interval(right: float, n: float) -> tuple[float, float]:
    """95 % Wilson interval of a proportion, for `right` of `n` samples.

    .. math:: \\frac{\\hat p + z^2/2n \\pm z \\sqrt{\\hat p (1 - \\hat p)/n + z^2/4n^2}}{1 + z^2/n}

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927.
    """
    z, share = NormalDist().inv_cdf((1 + CONFIDENCE) / 2), right / n
    middle, half = share + z * z / (2 * n), z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    low, high = (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
    return (0.0 if right == 0 else low, 1.0 if right == n else high)


def _probabilities(values: ArrayLike) -> NDArray[np.float64]:
    p = np.asarray(values, dtype=np.float64)
    if p.ndim != 2 or 0 in p.shape:
        raise ValueError(f"probabilities must have shape (samples, classes), at least one of each, not {p.shape}")
    if not np.isfinite(p).all() or p.min() < 0 or np.abs(p.sum(axis=1) - 1).max() > 1e-3:
        raise ValueError("probabilities must be finite, not negative, and sum to 1 in each row")
    return p


def combine(
    probabilities: Sequence[ArrayLike], rule: Literal["average", "max"] = "average", of_classes: bool = True
) -> NDArray[np.float64]:
    """Combine the predictions of several participants.

    Args:
        probabilities: One (N, C) array per participant, for the same samples.
        rule: ``average`` of the probabilities, or the ``max`` over participants, normalised to sum to 1.
        of_classes: True for class probabilities; others are not normalised.

    Returns:
        (N, C) probabilities.

    Raises:
        ValueError: If there are none or their shapes differ.
    """
    tables = [np.asarray(each, dtype=np.float64) if not of_classes else _probabilities(each) for each in probabilities]
    if len({table.shape for table in tables}) != 1:
        raise ValueError(f"probabilities of the same samples and classes are needed, not {[table.shape for table in tables]}")
    together = reduce(np.maximum, tables) if rule == "max" else np.mean(tables, axis=0)
    return together / together.sum(axis=1, keepdims=True) if of_classes else together
