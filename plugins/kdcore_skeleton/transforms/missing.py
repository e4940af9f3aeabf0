"""Handling of missing joints."""

from __future__ import annotations

from typing import Literal

import numpy as np

from kdcore import SampleTransform, Signal


class MissingJoints(SampleTransform):
    """Fill missing joints: NaN, or zero in all channels. Use this before resampling.

    A joint seen in no frame, such as those of a second person who is absent, becomes zero throughout.

    Args:
        fill: ``interpolate`` linearly in time between frames where the joint was seen (before the first and after the last,
            the nearest counts), ``hold`` the last position seen (before the first, the first), or ``zero``.
    """

    def __init__(self, *, fill: Literal["interpolate", "hold", "zero"] = "interpolate"):
        self.fill = fill

    def __call__(self, signal: Signal) -> Signal:
        """Return the signal (T, V, C, M) without gaps.

        Raises:
            ValueError: If the signal is no skeleton.
        """
        if signal.values.ndim != 4:
            raise ValueError(f"missing-joints reads (time, joint, channel, person), not {signal.values.shape}")
        values = np.where(np.isfinite(signal.values), signal.values, 0)
        seen = np.isfinite(signal.values).all(axis=2) & (values != 0).any(axis=2)
        values = np.where(seen[:, :, None], values, 0)
        if self.fill != "zero":
            for joint, person in np.argwhere(~seen.all(axis=0) & seen.any(axis=0)):
                track, known = values[:, joint, :, person], seen[:, joint, person]
                track[:] = self._held(track, known) if self.fill == "hold" else _interpolated(track, known, signal.clock)
        return signal.with_values(values.astype(signal.values.dtype, copy=False))

    def _held(self, track: np.ndarray, known: np.ndarray) -> np.ndarray:
        latest = np.maximum.accumulate(np.where(known, np.arange(len(known)), known.argmax()))
        return track[latest]


def _interpolated(track: np.ndarray, known: np.ndarray, clock: np.ndarray) -> np.ndarray:
    return np.stack([np.interp(clock, clock[known], channel[known]) for channel in track.T], axis=1)
