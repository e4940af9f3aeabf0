"""Answers for the windows of a long recording, steadied over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from kdcore.errors import DataError


@dataclass(frozen=True)
class Smoothing:
    """How the answer for a window takes those before it into account, as a live system could.

    Args:
        windows: How many windows count: this one and those just before it; fewer at the beginning. 1 for none.
        rule: The ``mean`` of their probabilities, or the share of them whose likeliest class it was (``majority``); of classes
            with equally many votes, the one with the larger mean comes first.

    Raises:
        DataError: If there is not even one window.
    """

    windows: int = 1
    rule: Literal["mean", "majority"] = "mean"

    def __post_init__(self) -> None:
        if self.windows < 1:
            raise DataError(f"smoothing is over 1 window or more, not {self.windows}")


def chosen_window(length: float | None, hop: float | None, own: tuple[float, float] | None) -> tuple[float, float] | None:
    """Length and hop of windows in seconds as asked for; what is not asked for is as the student was trained.

    Raises:
        DataError: If a number is not above zero, or there is a hop and no window.
    """
    if length is None and hop is None:
        return own
    if length is None and own is None:
        raise DataError("a hop needs a window: this student was trained on whole recordings")
    length = length if length is not None else own[0]  # type: ignore[index]
    hop = hop if hop is not None else length
    if not (length > 0 and hop > 0):
        raise DataError(f"a window and its hop are more than 0 s, not {length:g} and {hop:g}")
    return length, hop


def smoothed(probabilities: np.ndarray, smoothing: Smoothing) -> np.ndarray:
    """Probabilities (windows, classes), in order of time, smoothed; rows sum to 1."""
    if smoothing.windows == 1:
        return probabilities
    means = _trailing(probabilities, smoothing.windows)
    if smoothing.rule == "mean":
        return means
    votes = np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)]
    ties = 1e-6 * means  # decides between equal shares, which otherwise differ by 1 / windows
    shares = _trailing(votes, smoothing.windows) + ties
    return shares / shares.sum(axis=1, keepdims=True)


def _trailing(values: np.ndarray, count: int) -> np.ndarray:
    """Means of each row and the `count` - 1 rows before it."""
    sums = np.cumsum(values.astype(np.float64), axis=0)
    sums[count:] -= sums[:-count].copy()
    return sums / np.minimum(np.arange(1, len(values) + 1), count)[:, None]
