"""Modalities of the bundled datasets, and units. Recipes and other datasets can refer to them by name."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from kdcore import UNITS, Modality

Unit = Literal["m/s^2", "g", "mg", "rad/s", "deg/s", "rad", "deg", "m", "cm", "mm"]
FACTORS = {unit: factor for unit, (_, factor) in UNITS.items()}
"""Factors of units to m/s², rad/s, rad or m."""

STANDARD_GRAVITY = FACTORS["g"]
"""Standard gravity in m/s²."""

TimeUnit = Literal["s", "ms", "us", "ns"]
SECONDS: dict[TimeUnit, float] = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
"""Factors of time units to seconds."""


def _chains(*chains: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    return tuple(link for chain in chains for link in pairwise(chain))


_ARMS_AND_LEGS = ((4, 5, 6, 7), (8, 9, 10, 11), (12, 13, 14, 15), (16, 17, 18, 19))
KINECT_20_LINKS = _chains((0, 1, 2, 3), (1, 4), (1, 8), (3, 12), (3, 16), *_ARMS_AND_LEGS)
"""Edges between joints, in the order of UTD-MHAD."""

NTU_25_LINKS = _chains((3, 2, 20), (0, 1, 20), (20, 4), (20, 8), (0, 12), (0, 16), (7, 22, 21), (11, 24, 23), *_ARMS_AND_LEGS)
"""Edges between joints, in the order of NTU RGB+D."""

_XYZ = ("x", "y", "z")
_VIDEO_AXES = ("time", "height", "width", "channel")
_VIDEO_LAYOUT = ("time", "channel", "height", "width")

ACCELEROMETER = Modality(
    name="accelerometer",
    axes=("time", "channel"),
    layout=("channel", "time"),
    units="m/s^2",
    channels=_XYZ,
    description="acceleration including gravity, in the sensor's own axes",
)

GYROSCOPE = Modality(
    name="gyroscope",
    axes=("time", "channel"),
    layout=("channel", "time"),
    units="rad/s",
    channels=_XYZ,
    description="angular velocity about the sensor's own axes",
)

ORIENTATION = Modality(
    name="orientation",
    axes=("time", "channel"),
    layout=("channel", "time"),
    units="rad",
    channels=("azimuth", "pitch", "roll"),
    description="attitude of the device",
)

SKELETON = Modality(
    name="skeleton",
    axes=("time", "joint", "channel", "person"),
    layout=("channel", "time", "joint", "person"),
    units="m",
    channels=_XYZ,
    description="positions of body joints, one set per person",
)

KINECT_20 = SKELETON.renamed("skeleton", skeleton="utd-mhad-20", persons=1, links=KINECT_20_LINKS)
"""A person as UTD-MHAD's Kinect saw one."""

RGB = Modality(
    name="rgb",
    axes=_VIDEO_AXES,
    layout=_VIDEO_LAYOUT,
    units="0..255",
    channels=("red", "green", "blue"),
    description="colour video, uint8",
)

DEPTH = Modality(
    name="depth",
    axes=_VIDEO_AXES,
    layout=_VIDEO_LAYOUT,
    units="mm",
    channels=("depth",),
    description="distance from the camera, uint16; 0 where it is unknown",
)

FLOW = Modality(
    name="flow",
    axes=_VIDEO_AXES,
    layout=_VIDEO_LAYOUT,
    units="px/frame",
    channels=("x", "y"),
    description="optical flow between neighbouring frames",
)
