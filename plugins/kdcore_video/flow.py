"""Optical flow, computed from a video."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt

from kdcore import Modality, SampleTransform, Signal
from kdcore_video.clip import Fit, as_bytes, centred, fitted

Motion = Callable[[np.ndarray, np.ndarray], np.ndarray]
_ROUNDING = 1e-3


class OpticalFlow(SampleTransform):
    r"""Stacks of optical flow from the middle of each of `segments` equal stretches of a colour or depth video.

    Flow in pixels per frame at the size of the clip is clipped to ±`bound` and stored as bytes:

    .. math:: v = \mathrm{round}\big(255\,(\mathrm{clip}(u, -b, b) + b) / 2b\big)

    Shapes: (T, H, W, C) → (segments, size, size, 2·stack) uint8, channels x₁, y₁, x₂, y₂, … Colours are uint8, or floats from 0
    to 1; one channel of another type than uint8 is depth in millimetres.

    Args:
        segments: Stacks kept.
        stack: Consecutive flow fields of a stack.
        size: Side length in pixels; the video is resized before flow is computed.
        fit: As in ``clip``.
        bound: Largest motion that is represented, in pixels per frame.
        method: ``dis`` (dense inverse search) or ``farneback``.
        depth_range: Nearest and farthest distance in millimetres that are represented in a depth video (uint16).

    Source: input of the temporal stream in Simonyan and Zisserman, Two-Stream Convolutional Networks (NIPS 2014,
    https://arxiv.org/abs/1406.2199); bound and stack of Wang et al., Temporal Segment Networks (ECCV 2016,
    https://arxiv.org/abs/1608.00859).
    """

    def __init__(
        self,
        *,
        segments: Annotated[int, Ge(1)] = 8,
        stack: Annotated[int, Ge(1)] = 5,
        size: Annotated[int, Ge(16)] = 112,
        fit: Fit = "crop",
        bound: Annotated[float, Gt(0)] = 20.0,
        method: Literal["dis", "farneback"] = "dis",
        depth_range: tuple[float, float] = (500.0, 4500.0),
    ):
        self.segments = segments
        self.stack = stack
        self.size = size
        self.fit: Fit = fit
        self.bound = bound
        self.method: Literal["dis", "farneback"] = method
        self.depth_range = depth_range

    def __call__(self, signal: Signal) -> Signal:
        """Return flow of a recording.

        Raises:
            ValueError: If it is no video of colours or depth, or shorter than ``stack + 1`` frames.
        """
        if signal.values.ndim != 4:
            raise ValueError(f"a video has axes (time, height, width, channel); this signal is {signal.values.shape}")
        starts = centred(len(signal), self.segments, self.stack + 1)
        fields = self._fields(signal.values, {int(start) + k for start in starts for k in range(self.stack)})
        stacks = [np.concatenate([fields[int(start) + k] for k in range(self.stack)], axis=-1) for start in starts]
        values = as_bytes(np.stack(stacks), -self.bound, self.bound)
        return replace(signal, values=values, times=signal.clock[starts], rate=self.segments / signal.duration)

    def output_spec(self, spec: Modality) -> Modality:
        """Return the spec of stacked flow as uint8."""
        channels = tuple(f"{axis}{number}" for number in range(1, self.stack + 1) for axis in ("x", "y"))
        return replace(spec, units="", rate=None, channels=channels)

    def _fields(self, video: np.ndarray, instants: set[int]) -> dict[int, np.ndarray]:
        """Return flow from each of `instants` to the frame after it, (H, W, 2)."""
        motion = _motion(self.method)
        needed = sorted(instants | {instant + 1 for instant in instants})
        grey = dict(zip(needed, self._grey(fitted(video[needed], self.size, self.fit)), strict=True))
        return {instant: motion(grey[instant], grey[instant + 1]) for instant in sorted(instants)}

    def _grey(self, frames: np.ndarray) -> np.ndarray:
        """Return frames (T, H, W, C) as (T, H, W) uint8."""
        if frames.dtype != np.uint8:
            if frames.shape[-1] == 1:
                return as_bytes(frames[..., 0], *self.depth_range)
            frames = _colours(frames)
        return np.rint(frames @ np.array([0.299, 0.587, 0.114])).astype(np.uint8) if frames.shape[-1] == 3 else frames[..., 0]


def _colours(frames: np.ndarray) -> np.ndarray:
    """Return colours from 0 to 1 as bytes."""
    if frames.shape[-1] != 3 or frames.dtype.kind != "f":
        raise ValueError(
            "optical-flow reads colours (3 channels of uint8, or of floats from 0 to 1) or depth (1 channel), "
            f"not {frames.shape[-1]} channels of {frames.dtype}"
        )
    if not (frames.min() >= -_ROUNDING and frames.max() <= 1 + _ROUNDING):
        raise ValueError(f"floating-point colours must be between 0 and 1, not from {frames.min():g} to {frames.max():g}")
    return as_bytes(frames, 0, 1)


def _motion(method: Literal["dis", "farneback"]) -> Motion:
    import cv2

    if method == "dis":
        search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        return lambda before, after: search.calc(before, after, None)  # type: ignore[arg-type]
    pyramid = {"pyr_scale": 0.5, "levels": 3, "winsize": 15, "iterations": 3, "poly_n": 5, "poly_sigma": 1.2, "flags": 0}
    return lambda before, after: cv2.calcOpticalFlowFarneback(before, after, None, **pyramid)  # type: ignore[call-overload]
