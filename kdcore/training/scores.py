"""Metrics for labels and values, with sample counts for bootstrap resamples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def average_precisions(probabilities: Numbers, labels: NDArray, counts: Numbers | None = None) -> Numbers:
    r"""Average precision of each label: the area under its precision-recall curve, as a step function.

    .. math:: \mathrm{AP} = \sum_n (R_n - R_{n-1}) P_n

    with precision P and recall R at every threshold that occurs among the probabilities, as
    `sklearn.metrics.average_precision_score` has it.

    Args:
        probabilities: (N, L) of each label.
        labels: (N, L), 0 or 1; any other number, or NaN, where it is not known: that sample does not count for that label.
        counts: (R, N) how often each sample counts in each of R resamples; each once by default.

    Returns:
        (R, L), NaN where no sample that counts has the label; (L,) without `counts`.
    """
    weights = np.ones((1, len(labels))) if counts is None else counts
    precisions = np.full((len(weights), labels.shape[1]), np.nan)
    for label in range(labels.shape[1]):
        known = np.flatnonzero((labels[:, label] == 0) | (labels[:, label] == 1))
        if not len(known):
            continue
        order = known[np.argsort(-probabilities[known, label], kind="stable")]
        score, true, weigh = probabilities[order, label], labels[order, label], weights[:, order]
        ends = np.flatnonzero(np.append(np.diff(score) != 0, True))  # equal probabilities share a threshold
        right, taken = np.cumsum(weigh * true, axis=1)[:, ends], np.cumsum(weigh, axis=1)[:, ends]
        precision = np.divide(right, taken, out=np.zeros_like(right), where=taken > 0)
        gained = np.diff(right, axis=1, prepend=0.0)
        positive = right[:, -1]
        total = (gained * precision).sum(axis=1)
        precisions[:, label] = np.divide(total, positive, out=np.full(len(weights), np.nan), where=positive > 0)
    return precisions[0] if counts is None else precisions


def mean_average_precision(probabilities: Numbers, labels: NDArray) -> float:
    """Mean average precision over the labels that at least one sample has; NaN if there is none."""
    return float(mean_known(average_precisions(probabilities, labels)))


def mean_errors(errors: Numbers, counts: Numbers | None = None) -> Numbers:
    """Mean error of each value over the samples whose true value is known.

    Args:
        errors: (N, V) absolute errors, NaN where the true value is unknown.
        counts: (R, N) how often each sample counts in each of R resamples; each once by default.

    Returns:
        (R, V), NaN where no value that counts is known; (V,) without `counts`.
    """
    weights = np.ones((1, len(errors))) if counts is None else counts
    known = ~np.isnan(errors)
    number, total = weights @ known, weights @ np.where(known, errors, 0.0)
    means = np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)
    return means[0] if counts is None else means


def r_squared(predictions: Numbers, values: Numbers, counts: Numbers | None = None) -> Numbers:
    r"""Coefficient of determination of each value.

    .. math:: R^2 = 1 - \frac{\sum_i (y_i - \hat y_i)^2}{\sum_i (y_i - \bar y)^2}

    Args:
        predictions: (N, V) estimates.
        values: (N, V) true ones, NaN where not known: that sample does not count for that value.
        counts: (R, N) how often each sample counts in each of R resamples; each once by default.

    Returns:
        (R, V), NaN where all true values that count are equal; (V,) without `counts`.
    """
    weights = np.ones((1, len(values))) if counts is None else counts
    known = ~np.isnan(values)
    total = np.maximum(weights @ known, 1.0)
    shifted = np.where(known, values - mean_known(values.T), 0.0)  # does not change differences, keeps digits
    mean = weights @ shifted / total
    spread = weights @ shifted**2 - total * mean**2
    errors = weights @ np.where(known, predictions - values, 0.0) ** 2
    fit = spread > 1e-12 * np.maximum(weights @ shifted**2, np.finfo(np.float64).tiny)
    scores = 1 - np.divide(errors, spread, out=np.full_like(errors, np.nan), where=fit)
    return scores[0] if counts is None else scores


def mean_known(values: Numbers) -> Numbers:
    """Mean over the last axis without NaN, as `numpy.nanmean`, but without a warning where all are NaN."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.divide(total, count, out=np.full(np.shape(count), np.nan), where=count > 0)
