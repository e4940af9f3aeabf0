"""Readings of an inertial measurement unit strapped to a segment.

With the sensor's position :math:`p(t)` in the world, its orientation :math:`R(t)` (sensor to world) and
:math:`g = (0, 0, -9.81)`:

.. math:: f = R^\\top (\\ddot p - g), \\qquad [\\omega]_\\times = R^\\top \\dot R
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kdcore_datasets.synthetic.skeleton import Figure, Side
from kdcore_datasets.synthetic.subjects import spread

GRAVITY = 9.81
_STEP = 1e-3

Placement = Literal["dominant-wrist", "right-wrist", "left-wrist", "dominant-thigh", "right-thigh", "left-thigh"]


@dataclass(frozen=True)
class Mount:
    """Mounting of a sensor on a body segment.

    Sensor axes, before misplacement: x down the segment, z out of the skin (the back of the wrist, the front of the thigh).

    Args:
        side: Side of the body.
        segment: ``forearm`` or ``thigh``.
        offset: Position relative to the upper joint in the frame of the segment, in metres, (3,).
        rotation: Rotation from sensor axes to segment axes, (3, 3).
    """

    side: Side
    segment: str
    offset: np.ndarray
    rotation: np.ndarray

    def orientation(self, figure: Figure) -> np.ndarray:
        """Return R, the rotation from sensor axes to world axes, (T, 3, 3)."""
        return figure.frames[f"{self.side}_{self.segment}"] @ self.rotation

    def position(self, figure: Figure) -> np.ndarray:
        """Return p, the position in the world, (T, 3)."""
        root = figure.joint(f"{self.side}_{'elbow' if self.segment == 'forearm' else 'hip'}")
        return root + figure.frames[f"{self.side}_{self.segment}"] @ self.offset


@dataclass(frozen=True)
class Errors:
    """Standard deviations of the errors of a sensor, and its range.

    Args:
        white: Noise of each reading.
        bias: Constant offset per axis.
        gain: Relative error per axis.
        limit: Largest absolute value.
    """

    white: float
    bias: float
    gain: float
    limit: float


ACCELEROMETER_ERRORS = Errors(white=0.2, bias=0.2, gain=0.01, limit=16 * GRAVITY)
GYROSCOPE_ERRORS = Errors(white=0.03, bias=0.03, gain=0.01, limit=float(np.deg2rad(2000)))


def strap(
    placement: Placement,
    dominant: Side,
    lengths: dict[str, float],
    habit: np.random.Generator,
    chance: np.random.Generator,
    error: float,
) -> Mount:
    """Return the mounting at `placement`, with a systematic misplacement per wearer and a random one per trial.

    Args:
        placement: Placement on the body.
        dominant: Dominant side of the wearer.
        lengths: Lengths of the forearm and the thigh in metres.
        habit: Random generator of the wearer.
        chance: Random generator of the trial.
        error: Factor for the misplacement; 0 for none.
    """
    where, _, part = placement.partition("-")
    side: Side = dominant if where == "dominant" else "left" if where == "left" else "right"
    segment = "forearm" if part == "wrist" else "thigh"
    out = np.array([1.0, 0.0, 0.0]) if part == "thigh" else np.array([0.0, -1.0 if side == "right" else 1.0, 0.0])
    down = np.array([0.0, 0.0, -1.0])
    ideal = np.stack([down, np.cross(out, down), out], axis=1)
    tilt = error * (np.array([0.35, 0.1, 0.1]) * spread(habit, 3) + np.array([0.12, 0.04, 0.04]) * spread(chance, 3))
    share = (0.92 if part == "wrist" else 0.6) + error * (0.03 * spread(habit) + 0.01 * spread(chance))
    thickness = 0.03 if part == "wrist" else 0.08
    rotation = ideal @ rotation_matrix(tilt)
    return Mount(side, segment, share * lengths[segment] * down + thickness * out, rotation)


def rotation_matrix(vector: np.ndarray) -> np.ndarray:
    """Return the rotation matrix, (3, 3), of a rotation vector in radians, (3,).

    The result is bit-identical to `scipy.spatial.transform.Rotation`, which takes a second to import.
    """
    a, b, c = vector.tolist()
    angle = math.sqrt(a * a + b * b + c * c)
    square = angle * angle
    half = 0.5 - square / 48 + square * square / 3840 if angle <= 1e-3 else math.sin(angle / 2) / angle
    x, y, z, w = half * a, half * b, half * c, math.cos(angle / 2)
    x2, y2, z2, w2 = x * x, y * y, z * z, w * w
    return np.array(
        [
            [x2 - y2 - z2 + w2, 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), -x2 + y2 - z2 + w2, 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), -x2 - y2 + z2 + w2],
        ]
    )


def readings(motion: Callable[[np.ndarray], Figure], mount: Mount, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return specific force in m/s² and angular velocity in rad/s of an ideal sensor, each (T, 3), at the times `t`.

    Derivatives are central differences over ±1 ms of the motion itself, in double precision.
    """
    figure = motion(np.concatenate([t - _STEP, t, t + _STEP]))
    before, now, after = np.split(mount.position(figure), 3)
    acceleration = (before - 2 * now + after) / _STEP**2
    r_before, r_now, r_after = np.split(mount.orientation(figure), 3)
    force = np.einsum("tji,tj->ti", r_now, acceleration + np.array([0.0, 0.0, GRAVITY]))
    spin = np.einsum("tji,tjk->tik", r_now, (r_after - r_before) / (2 * _STEP))
    rate = 0.5 * np.stack([spin[:, 2, 1] - spin[:, 1, 2], spin[:, 0, 2] - spin[:, 2, 0], spin[:, 1, 0] - spin[:, 0, 1]], axis=1)
    return force, rate


def measured(ideal: np.ndarray, errors: Errors, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Add sensor errors, multiplied by `noise`, to the `ideal` readings, (T, 3)."""
    gain = 1 + noise * errors.gain * spread(rng, 3)
    drifted = ideal * gain + noise * errors.bias * spread(rng, 3) + noise * errors.white * rng.standard_normal(ideal.shape)
    return drifted.clip(-errors.limit, errors.limit)
