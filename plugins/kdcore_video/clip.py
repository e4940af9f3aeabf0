"""A clip: a fixed number of small frames out of a recording."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import numpy as np
from annotated_types import Ge

from kdcore import Modality, SampleTransform, Signal
from kdcore_video.picture import Fit, fitted
from kdcore_video.sampling import centred


class Clip(SampleTransform):
    """Takes the middle frame of each of `segments` equal stretches of a recording and resizes it.

    Shapes: (T, H, W, C) → (segments, size, size, C); the type of the pixels stays (uint8 of a colour video, uint16
    millimetres of a depth video) unless `depth_range` is given.

    Args:
        segments: Frames kept. Where ``random-segments`` follows, keep several times the frames that the encoder reads.
        size: Pixels of a side.
        fit: ``crop`` the middle square after bringing the short side to `size`, ``stretch`` to a square, or ``keep`` the
            aspect ratio with the short side at `size` (all recordings must then share it).
        depth_range: Nearest and farthest distance in millimetres of a depth video, mapped onto 0 … 255 (uint8); nearer and
            missing pixels become 0, farther ones 255.
        spec: What is known of the recordings.

    Raises:
        ValueError: If `depth_range` is given for what is known to be no millimetres, or its ends are not in order.
    """

    def __init__(
        self,
        *,
        segments: Annotated[int, Ge(1)] = 8,
        size: Annotated[int, Ge(1)] = 112,
        fit: Fit = "crop",
        depth_range: tuple[float, float] | None = None,
        spec: Modality | None = None,
    ):
        if depth_range and spec and spec.units not in ("", "mm"):
            raise ValueError(f"depth_range is in mm, {spec.name} is in {spec.units!r}")
        if depth_range and not depth_range[0] < depth_range[1]:
            raise ValueError(f"depth_range is (nearest, farthest) in millimetres, not {depth_range}")
        self.segments = segments
        self.size = size
        self.fit: Fit = fit
        self.depth_range = depth_range

    def __call__(self, signal: Signal) -> Signal:
        """The clip of a recording.

        Raises:
            ValueError: If it is no video, or has no frames.
        """
        if signal.values.ndim != 4:
            raise ValueError(f"a video has axes (time, height, width, channel); this signal is {signal.values.shape}")
        index = centred(len(signal), self.segments)
        frames = fitted(signal.values[index], self.size, self.fit)
        if self.depth_range:
            frames = as_bytes(frames, *self.depth_range)
        return replace(signal, values=frames, times=signal.clock[index], rate=self.segments / signal.duration)

    def output_spec(self, spec: Modality) -> Modality:
        """Frames further apart; bytes, if depth is mapped onto them."""
        return replace(spec, rate=None, units="0..255" if self.depth_range else spec.units)


def as_bytes(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """`values` clipped to [low, high] and mapped onto 0 … 255, uint8."""
    return np.rint((np.clip(values.astype(np.float32), low, high) - low) * (255 / (high - low))).astype(np.uint8)
