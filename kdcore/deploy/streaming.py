"""Predictions for the windows of a recording or stream, smoothed over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from kdcore.contracts.modality import Signal
from kdcore.contracts.target import OF_CLASSES, THRESHOLD, Target
from kdcore.data.windows import Span, cut
from kdcore.deploy.predictor import Predictor
from kdcore.deploy.recordings import fitting
from kdcore.errors import DataError

HALF = 0.5
"""Share of votes from which a label counts."""


@dataclass(frozen=True)
class Smoothing:
    """Causal smoothing: a window's probabilities are combined with those of the windows just before it.

    Args:
        windows: Number of windows to combine, including the current one; fewer at the beginning. 1 for no smoothing.
        rule: ``mean`` of their probabilities; or ``majority``, the fraction of windows that predict a class, where ties go to
            the class with the larger mean. For labels, ``majority`` is the fraction of windows in which a label reaches the
            threshold; it counts above a half, and at exactly a half if its mean reaches the threshold.

    Raises:
        DataError: If `windows` is less than 1.
    """

    windows: int = 1
    rule: Literal["mean", "majority"] = "mean"

    def __post_init__(self) -> None:
        if self.windows < 1:
            raise DataError(f"smoothing must be at least 1 window, not {self.windows}")


def chosen_window(length: float | None, hop: float | None, own: tuple[float, float] | None) -> tuple[float, float] | None:
    """Length and hop of windows in seconds; the student's `own` where they are not given.

    Raises:
        DataError: If a number is not finite and above zero, or there is a hop and no window.
    """
    if length is None and hop is None:
        return own
    if length is None and own is None:
        raise DataError("--hop requires --window, since this student was trained on whole recordings")
    length = length if length is not None else own[0]  # type: ignore[index]
    hop = hop if hop is not None else length
    for name, seconds in (("window", length), ("hop", hop)):
        if not 0 < seconds < np.inf:
            raise DataError(f"{name} must be a finite number of seconds above 0, not {seconds:g}")
    return length, hop


def refuse_majority(student: Predictor, smoothing: Smoothing) -> None:
    """Refuse a majority vote of values.

    Raises:
        DataError: If one is asked for.
    """
    if smoothing.rule == "majority" and student.target.kind == "values":
        raise DataError(
            "a majority vote is about classes or labels, and this student predicts values: leave --majority out, and "
            "--smoothing averages the values of windows"
        )


def votes(target: Target, smoothing: Smoothing) -> bool:
    """True if what smoothing gives of labels are shares of votes, of which a half decides."""
    return target.kind == "labels" and smoothing.rule == "majority" and smoothing.windows > 1


def smoothed(
    probabilities: np.ndarray, smoothing: Smoothing, target: Target = OF_CLASSES, threshold: float = THRESHOLD
) -> np.ndarray:
    """Probabilities or values (windows, classes), in order of time, smoothed; rows of class probabilities sum to 1.

    Args:
        probabilities: (windows, classes); of labels or values as `target` says.
        smoothing: The rule.
        target: The form of the outputs.
        threshold: Probability from which a label counts in a vote.
    """
    if smoothing.windows == 1:
        return probabilities
    means = _trailing(probabilities, smoothing.windows)
    if smoothing.rule == "mean":
        return means
    if target.kind == "labels":
        shares = _trailing(probabilities >= threshold, smoothing.windows)
        lost = (shares == HALF) & (means < threshold)
        return np.where(lost, np.nextafter(HALF, 0.0), shares)
    votes = np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)]
    ties = 1e-6 * means  # decides between equal shares, which otherwise differ by 1 / windows
    shares = _trailing(votes, smoothing.windows) + ties
    return shares / shares.sum(axis=1, keepdims=True)


def _trailing(values: np.ndarray, count: int) -> np.ndarray:
    """Means of each row and the `count` - 1 rows before it."""
    sums = np.cumsum(values.astype(np.float64), axis=0)
    sums[count:] -= sums[:-count].copy()
    return sums / np.minimum(np.arange(1, len(values) + 1), count)[:, None]


class StreamingPredictor:
    """Predicts the windows of a stream of samples as soon as they are complete.

    Windows and probabilities are the same as those of `Predictor.predict` for the whole recording.

    Args:
        student: A saved student of one modality.
        rate: Sampling rate in Hz.
        window: Length and hop in seconds.
        smoothing: Smoothing over windows.
        threshold: Probability from which a label counts in a majority vote.

    Attributes:
        count: Samples seen so far.
    """

    def __init__(
        self,
        student: Predictor,
        rate: float,
        window: tuple[float, float],
        smoothing: Smoothing = Smoothing(),
        threshold: float = THRESHOLD,
    ):
        refuse_majority(student, smoothing)
        [self._name] = student.reads
        self._student, self._rate, self._window, self._smoothing = student, rate, window, smoothing
        self._threshold = threshold
        self._kept: list[np.ndarray] = []
        self._first = 0  # number of the first sample that is kept
        self._next = 0  # number of the next window
        self._recent: list[np.ndarray] = []
        self.count = 0

    def push(self, samples: np.ndarray) -> list[tuple[Span, np.ndarray]]:
        """Add samples (T, …); returns (start and end in seconds, probabilities) of every window they complete."""
        self._kept.append(np.asarray(samples))
        self.count += len(samples)
        length, hop = self._window
        complete = int((self.count / self._rate - length) / hop + 1e-6) + 1
        if self.count / self._rate < length - 1e-6 * hop or complete <= self._next:
            return []
        signal = Signal(np.concatenate(self._kept), self._rate, self._first / self._rate)
        spans = [(number * hop, number * hop + length) for number in range(self._next, complete)]
        fit = fitting(self._student, self._name, signal)
        pieces = [{self._name: cut(fit, span)} for span in spans]
        outputs = [self._smoothed(row) for row in self._student.probabilities(pieces)]
        self._next = complete
        keep = min(len(signal), max(0, int(complete * hop * self._rate) - self._first - 1))
        self._kept, self._first = [signal.values[keep:]], self._first + keep
        return list(zip(spans, outputs, strict=True))

    def _smoothed(self, probabilities: np.ndarray) -> np.ndarray:
        self._recent = [*self._recent, probabilities][-self._smoothing.windows :]
        return smoothed(np.stack(self._recent), self._smoothing, self._student.target, self._threshold)[-1]
