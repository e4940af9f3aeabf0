"""Clips: a fixed number of small frames of a recording."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge

from kdcore import Modality, SampleTransform, Signal


def centred(frames: int, segments: int, span: int = 1) -> np.ndarray:
    r"""One position in the middle of each of `segments` equal stretches of a recording, shape (segments,).

    .. math:: t_i = \lfloor (i + 1/2) (frames - span + 1) / segments \rfloor

    Positions start at 0 and repeat if there are fewer frames than segments.

    Args:
        frames: Length of the recording.
        segments: How many positions.
        span: Consecutive frames needed from each position on.

    Raises:
        ValueError: If the recording is shorter than `span`.

    Source: Wang et al., Temporal Segment Networks (ECCV 2016, https://arxiv.org/abs/1608.00859); its code's indices at test
    time.
    """
    starts = frames - span + 1
    if starts < 1:
        raise ValueError(f"a recording of {frames} frames is too short for {span} consecutive frames")
    stretch = starts / segments
    # Floating point on purpose: where rounding decides, it decides as it does in the published code.
    return (stretch / 2 + stretch * np.arange(segments)).astype(np.int64)


Fit = Literal["crop", "stretch", "keep"]


def fitted(frames: np.ndarray, size: int, fit: Fit) -> np.ndarray:
    """`frames` resized: depth (uint16) by nearest neighbours, since means across an edge are not on any surface.

    Args:
        frames: (T, H, W, C).
        size: Pixels.
        fit: ``crop`` the middle square after bringing the short side to `size`, ``stretch`` to a square, or ``keep`` the
            aspect ratio with the short side at `size`.
    """
    height, width = frames.shape[1:3]
    scale = size / min(height, width)
    shape = (size, size) if fit == "stretch" else (max(size, round(height * scale)), max(size, round(width * scale)))
    resized = np.stack([_resize(frame, *shape) for frame in frames])
    if fit != "crop":
        return resized
    top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
    return resized[:, top : top + size, left : left + size]


def _resize(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    import cv2

    if frame.shape[:2] == (height, width):
        return frame
    shrinks = height * width < frame.shape[0] * frame.shape[1]
    how = cv2.INTER_NEAREST if frame.dtype == np.uint16 else cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(frame, (width, height), interpolation=how).reshape(height, width, -1)


class Clip(SampleTransform):
    """Take the middle frame of each of `segments` equal stretches of a recording and resize it.

    Shapes: (T, H, W, C) → (segments, size, size, C); the type of the pixels stays (uint8 of a colour video, uint16
    millimetres of a depth video) unless `depth_range` is given.

    Args:
        segments: Frames kept. Where ``random-segments`` follows, keep several times the frames that the encoder reads.
        size: Side length in pixels.
        fit: ``crop`` the middle square after bringing the short side to `size`, ``stretch`` to a square, or ``keep`` the
            aspect ratio with the short side at `size` (all recordings must then share it).
        depth_range: Nearest and farthest distance in millimetres of a depth video, mapped onto 0 … 255 (uint8); nearer and
            missing pixels become 0, farther ones 255.
        spec: Description of the recordings.

    Raises:
        ValueError: If `depth_range` is given for recordings that are not in millimetres, or its ends are not in order.
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
        """Return the clip of a recording.

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
        """Return the spec of the clip; uint8 if depth is mapped to bytes."""
        return replace(spec, rate=None, units="0..255" if self.depth_range else spec.units)


def as_bytes(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """`values` clipped to [low, high] and mapped onto 0 … 255, uint8."""
    return np.rint((np.clip(values.astype(np.float32), low, high) - low) * (255 / (high - low))).astype(np.uint8)
