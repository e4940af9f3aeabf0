"""A crop around the moving person of a depth video."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal, NamedTuple

import numpy as np
from annotated_types import Ge, Gt, Le, Lt

from kdcore import Modality, SampleTransform, Signal, warn
from kdcore_video.clip import fitted

FARTHEST = 65535
"""The largest distance that a depth video (uint16) can hold."""


class Person(NamedTuple):
    """A person in a depth video (T, H, W).

    Args:
        region: Pixels that the person covers in any frame, (H, W).
        moved: Those of them where something moves, (H, W).
        mask: The person's pixels in each frame, (T, H, W).
    """

    region: np.ndarray
    moved: np.ndarray
    mask: np.ndarray


class MotionCrop(SampleTransform):
    r"""Crop a depth video to the moving person: one square box for the whole recording.

    The background :math:`b` of a pixel is its farthest distance; a pixel without a measurement in more than half of the frames
    has no background. A pixel moves in a frame if its distance is less than :math:`b -` `threshold`, or if it is measured and
    has no background. Missing measurements (0) never move. The moving pixels of all frames are joined, small holes filled, and
    single pixels and thin lines removed; the largest connected region that remains is the person. Still parts are added:
    pixels that are connected to that region and whose background is within `reach` of the distances there, and other moving
    regions that are connected through them.

    The box has the height of the person and `margin` above and below, and the middle of its columns is the person's median
    column. It is larger where the motion is wider. At the border of the frame, the box is shifted inwards; it is
    never larger than the frame's short side. The box is resized to `size`, by the nearest pixel, so that people are of similar
    height in all recordings. Put the transform before ``clip``, with the same `size`.

    A recording in which nothing moves is a bad sample, unless `still` says to keep the middle square of its whole frames,
    with a warning.

    Shapes: (T, H, W, 1) → (T, size, size, 1), uint16.

    Args:
        size: Side length in pixels; None for the short side of the frames.
        threshold: Smallest motion, in the units of the recording (millimetres).
        reach: How much nearer or farther than the moving pixels still parts of the person may be, in the same units.
        margin: Space above and below the person, as a share of the person's height.
        background: Value of all pixels that do not belong to the person; None to leave them as they are.
        distance: Distance at which the person's median pixel is put, by adding a constant to all measurements of a recording;
            None to leave distances as they are. Without measurement, pixels stay 0.
        smallest: Smallest moving region, as a share of the frame's pixels; smaller ones are noise.
        still: Treatment of a recording without motion: ``refuse`` it, or ``keep`` its complete frames.
        spec: Description of the recordings.

    Raises:
        ValueError: If the recordings are not in millimetres.
    """

    def __init__(
        self,
        *,
        size: Annotated[int, Ge(1)] | None = None,
        threshold: Annotated[float, Gt(0)] = 100.0,
        reach: Annotated[float, Ge(0)] = 500.0,
        margin: Annotated[float, Ge(0)] = 0.1,
        background: Annotated[int, Ge(0), Le(FARTHEST)] | None = None,
        distance: Annotated[float, Gt(0), Le(FARTHEST)] | None = None,
        smallest: Annotated[float, Gt(0), Lt(1)] = 0.001,
        still: Literal["refuse", "keep"] = "refuse",
        spec: Modality | None = None,
    ):
        if spec and spec.units not in ("", "mm"):
            raise ValueError(f"motion-crop reads depth in mm, but {spec.name} is in {spec.units!r}")
        self.size = size
        self.threshold = threshold
        self.reach = reach
        self.margin = margin
        self.background = background
        self.distance = distance
        self.smallest = smallest
        self.still: Literal["refuse", "keep"] = still

    def __call__(self, signal: Signal) -> Signal:
        """Return the recording, cropped.

        Raises:
            ValueError: If it is no depth video, or nothing moves and `still` is ``refuse``.
        """
        video = signal.values
        if video.ndim != 4 or video.shape[-1] != 1 or video.dtype != np.uint16:
            raise ValueError(f"a depth video is (time, height, width, 1) uint16; this signal is {video.shape} {video.dtype}")
        size = self.size or min(video.shape[1:3])
        person = find_person(video[..., 0], self.threshold, self.reach, self.smallest)
        if person is None:
            if self.still == "refuse":
                raise ValueError("nothing moves in this recording")
            warn("motion-crop: nothing moves in a recording; its whole frames are kept")
            return replace(signal, values=fitted(video, size, "crop"))
        top, left, side = box(person, self.margin)
        cut = np.s_[:, top : top + side, left : left + side]
        frames = self._painted(video[..., 0][cut], person.mask[cut])
        return replace(signal, values=fitted(frames[..., None], size, "crop"))

    def _painted(self, frames: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Return cropped `frames` (T, side, side) with the given distance and background."""
        out = frames
        if self.distance is not None and mask.any():
            shift = self.distance - float(np.median(frames[mask]))
            moved = np.clip(np.rint(frames + shift), 1, FARTHEST).astype(frames.dtype)
            out = np.where(frames > 0, moved, frames)
        if self.background is not None:
            out = np.where(mask, out, np.uint16(self.background))
        return np.ascontiguousarray(out)


def find_person(depth: np.ndarray, threshold: float, reach: float, smallest: float) -> Person | None:
    """Return the moving person of a depth video (T, H, W), None if nothing moves; see `MotionCrop` for the arguments."""
    import cv2

    measured = depth > 0
    farthest = depth.max(axis=0).astype(np.float64)
    known = 2 * measured.sum(axis=0) >= len(depth)
    moving = measured & (~known | (depth < farthest - threshold))
    square = np.ones((3, 3), np.uint8)
    closed = cv2.morphologyEx(moving.any(axis=0).astype(np.uint8), cv2.MORPH_CLOSE, square)
    joined = cv2.morphologyEx(closed, cv2.MORPH_OPEN, square)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    if count < 2 or areas.max() < smallest * joined.size:
        return None
    largest = labels == 1 + int(areas.argmax())
    near, far = np.percentile(depth[moving & largest], (5, 95))
    static = known & (farthest >= near - reach) & (farthest <= far + reach)
    connected = cv2.connectedComponents(((joined > 0) | static).astype(np.uint8), connectivity=8)[1]
    region = connected == connected[largest][0]
    return Person(region, region & (joined > 0), measured & region & (moving | static))


def box(person: Person, margin: float) -> tuple[int, int, int]:
    """Return top, left and side of the square around a person, within the frame."""
    height, width = person.region.shape
    rows = np.flatnonzero(person.region.any(axis=1))
    columns = np.flatnonzero(person.moved.any(axis=0))
    centre = float(np.median(np.nonzero(person.region)[1]))
    tall = (rows[-1] - rows[0] + 1) * (1 + 2 * margin)
    wide = 2 * max(centre - columns[0], columns[-1] - centre) + 1
    side = min(int(np.ceil(max(tall, wide))), height, width)
    top = round((rows[0] + rows[-1] + 1 - side) / 2)
    left = round(centre + 0.5 - side / 2)
    return min(max(top, 0), height - side), min(max(left, 0), width - side), side
