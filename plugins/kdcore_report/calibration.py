"""Calibration: agreement of confidence and accuracy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdcore import Evaluation, LabelEvaluation


@dataclass(frozen=True, eq=False)
class Reliability:
    """Predictions in bins of equal width by confidence.

    Args:
        edges: Bin edges, (bins + 1,). A bin includes its upper edge.
        counts: Number of predictions per bin, (bins,).
        confidence: Mean confidence per bin, (bins,); NaN for empty bins.
        accuracy: Share of correct predictions per bin, (bins,); NaN for empty bins. For a label, the share of samples that have
            it.
        error: Expected calibration error; NaN without predictions.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    error: float


def reliability(evaluation: Evaluation, bins: int = 10) -> Reliability:
    """Compute a reliability diagram.

    The expected calibration error over bins :math:`B_m` of :math:`n` predictions is

    .. math:: \\sum_m \\frac{|B_m|}{n} \\left| \\mathrm{acc}(B_m) - \\mathrm{conf}(B_m) \\right|

    (C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017,
    https://arxiv.org/abs/1706.04599, equation 3).

    Args:
        evaluation: Evaluation of one participant.
        bins: Number of bins of equal width.
    """
    return _binned(evaluation.probabilities.max(axis=1), evaluation.correct, bins)


def label_reliability(evaluation: LabelEvaluation, label: int | None = None, bins: int = 10) -> Reliability:
    """Compute the reliability diagram of one label, or of all labels together.

    The probability of the label and the share of samples that have it replace confidence and accuracy.

    Args:
        evaluation: Evaluation of one participant.
        label: Index of the label; None for all.
        bins: Number of bins of equal width.
    """
    columns = slice(None) if label is None else slice(label, label + 1)
    is_known = evaluation.is_known[:, columns]
    return _binned(evaluation.probabilities[:, columns][is_known], evaluation.labels[:, columns][is_known], bins)


def _binned(confidence: NDArray[np.float64], right: NDArray, bins: int) -> Reliability:
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(which, confidence, bins) / counts
        share = np.bincount(which, right, bins) / counts
    error = float(np.nansum(counts * np.abs(share - mean)) / counts.sum()) if len(right) else float("nan")
    return Reliability(edges, counts, mean, share, error)
