"""A camera in front of the person, with a body tracker."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdcore_datasets.synthetic.skeleton import JOINTS
from kdcore_datasets.synthetic.subjects import spread

_LIMB_ENDS = tuple(JOINTS.index(f"{side}_{joint}") for side in ("left", "right") for joint in ("elbow", "hand", "knee", "foot"))


@dataclass(frozen=True)
class Camera:
    """A level pinhole camera that points at the person.

    Args:
        distance: Distance to the person in metres.
        height: Height above the floor in metres.
        azimuth: Angle from straight ahead to the person's left in radians.
        shift: Lateral offset of the optical axis from the person in metres.
        field: Height of the field of view at a distance of 3 m, in metres.
    """

    distance: float = 3.0
    height: float = 1.0
    azimuth: float = 0.0
    shift: float = 0.0
    field: float = 2.9

    @property
    def axes(self) -> np.ndarray:
        """Camera axes in the world, (3, 3): rows are left, up and away as seen by the camera. Right-handed, like the Kinect."""
        cos, sin = np.cos(self.azimuth), np.sin(self.azimuth)
        return np.array([[sin, -cos, 0.0], [0.0, 0.0, 1.0], [-cos, -sin, 0.0]])

    def view(self, points: np.ndarray) -> np.ndarray:
        """Convert world to camera coordinates in metres, both (..., 3)."""
        return points @ self.axes.T + np.array([self.shift, -self.height, self.distance])

    def project(self, viewed: np.ndarray, size: int) -> np.ndarray:
        """Project camera coordinates to (column, row) in a square image of `size` pixels, (..., 2)."""
        centre = (size - 1) / 2
        return centre - self.focal(size) * viewed[..., :2] / viewed[..., 2:]

    def focal(self, size: int) -> float:
        """Return the focal length in pixels."""
        return size * 3.0 / self.field


def setup(rng: np.random.Generator, viewpoint: float) -> Camera:
    """Return the camera of a trial. `viewpoint` is the standard deviation of its azimuth in degrees and scales other jitter."""
    azimuth, shift, height, distance = spread(rng, 4)
    jitter = viewpoint / 8
    return Camera(
        3.0 + 0.15 * jitter * distance, 1.0 + 0.05 * jitter * height, np.deg2rad(viewpoint) * azimuth, 0.05 * jitter * shift
    )


def tracked(joints: np.ndarray, rate: float, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Simulate the output of a body tracker: jitter, slow drift, and occasionally lost ends of limbs.

    Args:
        joints: Joint positions in camera coordinates, (T, 20, 3).
        rate: Frame rate in Hz.
        noise: Factor for all errors.
        rng: Random generator.
    """
    t = np.arange(len(joints))[:, None, None] / rate
    jitter = 0.004 * rng.standard_normal(joints.shape)
    frequency, phase = rng.uniform(0.1, 0.7, joints.shape[1:]), rng.uniform(0, 2 * np.pi, joints.shape[1:])
    drift = 0.008 * np.sin(2 * np.pi * frequency * t + phase) + 0.008 * spread(rng, joints.shape[1:])
    error = (jitter + drift) * np.array([1.0, 1.0, 1.6])
    for _ in range(rng.poisson(0.5)):
        lost, when = rng.choice(_LIMB_ENDS), rng.uniform(0, t[-1, 0, 0])
        error[:, lost] += 0.08 * spread(rng, 3) * np.exp(-(((t[:, 0] - when) / 0.12) ** 2))
    return joints + noise * error
