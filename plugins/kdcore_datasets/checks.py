"""Checks that every reader makes on what it read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kdcore import DataError

LARGEST = 1e30
"""No sensor measures more; below it, neither a change of units nor float32 makes a number infinite."""


def measurable(values: np.ndarray) -> np.ndarray:
    """Which of `values` are finite and no larger than `LARGEST` either way; the same shape."""
    return np.abs(values) <= np.float64(LARGEST)


def require_shape(values: np.ndarray, shape: Sequence[int | None], path: Path, what: str) -> np.ndarray:
    """`values` unchanged; None stands for any length, and axes of length zero are refused.

    Raises:
        DataError: If the shape is another one.
    """
    expected = "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
    fits = values.ndim == len(shape) and all(size in (None, actual) for size, actual in zip(shape, values.shape, strict=True))
    if not fits:
        raise DataError(f"{path}: {what} has shape {values.shape}, expected {expected}")
    if values.size == 0:
        raise DataError(f"{path}: {what} is empty (shape {values.shape})")
    return values


def require_finite(values: np.ndarray, path: Path, what: str) -> np.ndarray:
    """`values` unchanged.

    Raises:
        DataError: If a value is not a finite number, or beyond `LARGEST`, saying where the first one is.
    """
    bad = np.argwhere(~measurable(values))
    if len(bad):
        place = ", ".join(map(str, bad[0].tolist()))
        kind = "not finite" if not np.isfinite(values[tuple(bad[0])]) else "beyond all measure"
        raise DataError(f"{path}: {what} has {len(bad)} value(s) that are {kind}, the first at index ({place})")
    return values
