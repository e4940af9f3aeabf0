"""A body of 20 joints and its forward kinematics.

The world is right-handed with z up. A person stands on the floor z = 0 near the origin and faces +x, so that +y is to their
left. The columns of a frame are its axes in world coordinates. Hanging limbs point to -z of their frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

Side = Literal["right", "left"]

JOINTS = (
    "head", "shoulder_center", "spine", "hip_center",
    "left_shoulder", "left_elbow", "left_wrist", "left_hand",
    "right_shoulder", "right_elbow", "right_wrist", "right_hand",
    "left_hip", "left_knee", "left_ankle", "left_foot",
    "right_hip", "right_knee", "right_ankle", "right_foot",
)  # fmt: skip
"""Joint names in the order of UTD-MHAD."""

_LIMBS = tuple(
    (f"{side}_{a}", f"{side}_{b}")
    for side in ("left", "right")
    for a, b in (
        ("shoulder", "elbow"),
        ("elbow", "wrist"),
        ("wrist", "hand"),
        ("hip", "knee"),
        ("knee", "ankle"),
        ("ankle", "foot"),
    )
)
BONES = (
    ("hip_center", "spine"),
    ("spine", "shoulder_center"),
    ("shoulder_center", "head"),
    *(
        (center, f"{side}_{joint}")
        for side in ("left", "right")
        for center, joint in (("shoulder_center", "shoulder"), ("hip_center", "hip"))
    ),
    *_LIMBS,
)
"""The 19 pairs of joints, parent first, with constant distance."""

_X, _Y, _Z = 0, 1, 2


@dataclass(frozen=True)
class Body:
    """Lengths of body segments in metres. The defaults are an adult of 1.72 m.

    Segment lengths relative to stature follow Drillis and Contini, "Body Segment Parameters" (1966). Trunk joints are those of
    the Kinect.
    """

    lumbar: float = 0.07
    thorax: float = 0.37
    neck: float = 0.18
    shoulder_width: float = 0.38
    hip_width: float = 0.18
    upper_arm: float = 0.32
    forearm: float = 0.25
    hand: float = 0.09
    thigh: float = 0.42
    shank: float = 0.42
    foot: float = 0.15
    hip_drop: float = 0.08
    shoulder_drop: float = 0.03
    sole: float = 0.07


@dataclass(frozen=True)
class Figure:
    """A body at T instants.

    Args:
        joints: Joint positions in metres, (T, 20, 3).
        frames: Rotations from segment axes to world axes, (T, 3, 3), by segment.
    """

    joints: np.ndarray
    frames: Mapping[str, np.ndarray]

    def joint(self, name: str) -> np.ndarray:
        """Return the position of a joint, (T, 3)."""
        return self.joints[:, JOINTS.index(name)]


Pose = Mapping[str, np.ndarray]
"""Angles in radians at T instants by ``part.angle`` (``root.rise`` in metres). Missing angles are zero.

Parts are root, trunk, arm, leg (of the dominant side), other_arm and other_leg.
"""


def articulate(body: Body, pose: Pose, dominant: Side = "right", planted: bool = False) -> Figure:
    """Compute joint positions from joint angles.

    Args:
        body: Bone lengths.
        pose: Joint angles over time, at least one.
        dominant: Side of ``arm`` and ``leg``. A left-handed body is the mirror image of a right-handed one.
        planted: If true, both feet stay flat in place and the hips follow the legs, which must be bent equally. Otherwise, the
            hips are at the height of a straight leg, plus ``root.rise``.
    """
    return _Chain(body, pose, dominant, planted).figure()


def turned(frame: np.ndarray, axis: int, angle: np.ndarray) -> np.ndarray:
    """Rotate a `frame`, (3, 3, T), about its own `axis`: R → R · R_axis(angle)."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    cos, sin = np.cos(angle), np.sin(angle)
    out = frame.copy()
    out[:, first] = cos * frame[:, first] + sin * frame[:, second]
    out[:, second] = cos * frame[:, second] - sin * frame[:, first]
    return out


class _Chain:
    """Traverses the skeleton. Time is the last axis, so that inner loops of NumPy are long."""

    def __init__(self, body: Body, pose: Pose, dominant: Side, planted: bool):
        self.body = body
        self.planted = planted
        self.pose = pose
        self.dominant = dominant
        self.length = len(next(iter(pose.values())))
        self.still = np.zeros(self.length)
        self.joints: dict[str, np.ndarray] = {}
        self.frames: dict[str, np.ndarray] = {}

    def figure(self) -> Figure:
        self._trunk()
        for side in ("right", "left"):
            prefix = "" if side == self.dominant else "other_"
            self._arm(side, f"{prefix}arm")
            self._leg(side, f"{prefix}leg")
        joints = np.stack([self.joints[name] for name in JOINTS], axis=1) + self._root()[:, None]
        return Figure(joints.transpose(2, 1, 0), {name: frame.transpose(2, 0, 1) for name, frame in self.frames.items()})

    def _angle(self, name: str) -> np.ndarray:
        return self.pose.get(name, self.still)

    def _trunk(self) -> None:
        body, mirror = self.body, 1.0 if self.dominant == "right" else -1.0
        pelvis = np.repeat(np.eye(3)[:, :, None], self.length, axis=2)
        lean, twist, tilt = (self._angle(f"trunk.{name}") for name in ("lean", "twist", "tilt"))
        lumbar = turned(pelvis, _Y, lean / 2)
        thorax = turned(turned(turned(lumbar, _Y, lean / 2), _X, mirror * tilt), _Z, mirror * twist)
        self.frames.update(pelvis=pelvis, lumbar=lumbar, thorax=thorax)
        at = self.joints
        at["hip_center"] = np.zeros((3, self.length))
        at["spine"] = body.lumbar * lumbar[:, _Z]
        at["shoulder_center"] = at["spine"] + body.thorax * thorax[:, _Z]
        at["head"] = at["shoulder_center"] + body.neck * thorax[:, _Z]

    def _arm(self, side: str, part: str) -> None:
        body, outward = self.body, -1.0 if side == "right" else 1.0
        thorax = self.frames["thorax"]
        upper = turned(turned(thorax, _Y, -self._angle(f"{part}.flexion")), _X, outward * self._angle(f"{part}.abduction"))
        upper = turned(upper, _Z, -outward * self._angle(f"{part}.rotation"))
        forearm = turned(turned(upper, _Y, -self._angle(f"{part}.elbow")), _Z, -outward * self._angle(f"{part}.roll"))
        root = (
            self.joints["shoulder_center"]
            + outward * body.shoulder_width / 2 * thorax[:, _Y]
            - body.shoulder_drop * thorax[:, _Z]
        )
        self._limb(
            side, root, ("shoulder", "elbow", "wrist", "hand"), {"upper_arm": upper, "forearm": forearm, "hand": forearm}
        )

    def _leg(self, side: str, part: str) -> None:
        body, outward = self.body, -1.0 if side == "right" else 1.0
        pelvis = self.frames["pelvis"]
        thigh = turned(pelvis, _Y, -self._angle(f"{part}.flexion"))
        shank = turned(thigh, _Y, self._angle(f"{part}.knee"))
        foot = pelvis if self.planted else shank
        root = outward * body.hip_width / 2 * pelvis[:, _Y] - body.hip_drop * pelvis[:, _Z]
        self._limb(side, root, ("hip", "knee", "ankle"), {"thigh": thigh, "shank": shank})
        self.frames[f"{side}_foot"] = foot
        self.joints[f"{side}_foot"] = self.joints[f"{side}_ankle"] + body.foot * foot[:, _X] - 0.6 * body.sole * foot[:, _Z]

    def _limb(self, side: str, root: np.ndarray, joints: tuple[str, ...], segments: dict[str, np.ndarray]) -> None:
        self.joints[f"{side}_{joints[0]}"] = end = root
        for joint, (segment, frame) in zip(joints[1:], segments.items(), strict=True):
            self.frames[f"{side}_{segment}"] = frame
            self.joints[f"{side}_{joint}"] = end = end - getattr(self.body, segment) * frame[:, _Z]

    def _root(self) -> np.ndarray:
        """Return the position of the hip centre: above its straight leg, or given by planted feet."""
        straight = self.body.hip_drop + self.body.thigh + self.body.shank
        ankle = (self.joints["right_ankle"] + self.joints["left_ankle"]) / 2
        advance = -ankle[_X] if self.planted else self.still
        height = -ankle[_Z] if self.planted else straight + self._angle("root.rise")
        return np.stack([advance, self.still, self.body.sole + height])
