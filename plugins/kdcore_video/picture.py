"""Frames (T, H, W, C) brought to one size."""

from __future__ import annotations

from typing import Literal

import numpy as np

Fit = Literal["crop", "stretch", "keep"]


def fitted(frames: np.ndarray, size: int, fit: Fit) -> np.ndarray:
    """`frames` resized: depth (uint16) by its nearest pixel, since means across an edge lie where nothing is.

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
