"""The kinds of signal that the bundled datasets offer; a recipe or another dataset may refer to them by name."""

from __future__ import annotations

from kdcore import Modality

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
