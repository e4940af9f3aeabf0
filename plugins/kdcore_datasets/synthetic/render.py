"""Images of a person: body parts as capsules, drawn from back to front."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import cv2
import numpy as np

from kdcore_datasets.synthetic.camera import Camera
from kdcore_datasets.synthetic.skeleton import JOINTS, Side
from kdcore_datasets.synthetic.subjects import spread

_WALL = 1.3
_SHIFT = 4
_OVERSAMPLING = 2
_PIECES = 4
_EVEN = 0.06


@dataclass(frozen=True)
class Part:
    """A capsule between two joints. `radius` is in metres, and `cloth` is the key of its colour."""

    ends: tuple[str, str]
    radius: float
    cloth: str


def _limbs(side: Side) -> tuple[Part, ...]:
    return (
        Part((f"{side}_ankle", f"{side}_foot"), 0.045, "shoes"),
        Part((f"{side}_knee", f"{side}_ankle"), 0.055, "trousers"),
        Part((f"{side}_hip", f"{side}_knee"), 0.075, "trousers"),
        Part((f"{side}_shoulder", f"{side}_elbow"), 0.05, "shirt"),
        Part((f"{side}_elbow", f"{side}_wrist"), 0.04, "sleeve"),
        Part((f"{side}_wrist", f"{side}_hand"), 0.04, "skin"),
        Part(("spine", f"{side}_shoulder"), 0.09, "shirt"),
    )


PARTS = (
    *_limbs("right"),
    *_limbs("left"),
    Part(("left_hip", "right_hip"), 0.09, "trousers"),
    Part(("hip_center", "shoulder_center"), 0.13, "shirt"),
    Part(("left_shoulder", "right_shoulder"), 0.07, "shirt"),
    Part(("shoulder_center", "head"), 0.06, "skin"),
    Part(("head", "head"), 0.115, "face"),
)
_ENDS = np.array([[JOINTS.index(joint) for joint in part.ends] for part in PARTS])
_RADII = np.array([part.radius for part in PARTS])


@dataclass(frozen=True)
class Look:
    """Colours of the recordings of a subject, RGB from 0 to 255.

    Args:
        cloth: Colours of clothes, by name.
        wall: Colour of the background.
        floor: Colour of the floor.
        texture: Texture of the background, (8, 8, 3).
        light: Brightness of the room.
    """

    cloth: dict[str, np.ndarray]
    wall: np.ndarray
    floor: np.ndarray
    texture: np.ndarray
    light: float

    def blotches(self, size: int) -> np.ndarray:
        """Return the texture as an image of `size` pixels, (size, size, 3)."""
        return cv2.resize(self.texture, (size, size), interpolation=cv2.INTER_CUBIC)


def look(rng: np.random.Generator) -> Look:
    """Return the clothes and room of a subject."""
    skin = np.array([225.0, 180.0, 150.0]) * rng.uniform(0.4, 1.0)
    shirt, trousers, shoes = rng.uniform(20, 235, 3), rng.uniform(15, 150, 3), rng.uniform(10, 120, 3)
    sleeve = shirt * 0.9 if rng.random() < 0.5 else skin
    cloth = {"skin": skin, "face": skin, "shirt": shirt, "sleeve": sleeve, "trousers": trousers, "shoes": shoes}
    wall, floor = rng.uniform(70, 200) + 25 * spread(rng, 3), rng.uniform(50, 150) + 20 * spread(rng, 3)
    texture = 14 * spread(rng, (8, 8, 1)) + 4 * spread(rng, (8, 8, 3))
    return Look(cloth, wall, floor, texture, float(rng.uniform(0.75, 1.15)))


def rgb(joints: np.ndarray, camera: Camera, look: Look, size: int, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Render colour frames, (T, size, size, 3) uint8.

    Args:
        joints: Joint positions in camera coordinates, (T, 20, 3).
        camera: The camera.
        look: Colours.
        size: Height and width in pixels.
        noise: Factor for the pixel noise.
        rng: Random generator.
    """
    big = size * _OVERSAMPLING
    exposure = look.light * float(np.exp(0.08 * spread(rng)))
    ground = np.clip(_background(camera, look, big) * exposure, 0, 255).astype(np.uint8)
    colours = [tuple(float(min(255, c)) for c in look.cloth[part.cloth] * exposure) for part in PARTS]
    edges = [tuple(0.6 * c for c in colour) for colour in colours]
    points, widths, order = _strokes(joints, camera, big)
    frames = np.empty((len(joints), size, size, 3), np.uint8)
    grains = _grain(rng, len(joints), (size, size, 3), 4.0 * noise)
    strokes = _painted(order, points[:, :, 0], points[:, :, 1], widths)
    picture, small, noisy = np.empty_like(ground), np.empty_like(frames[0]), np.empty(frames.shape[1:], np.float32)
    line, style, shift = cv2.line, cv2.LINE_8, _SHIFT
    for frame, grain in zip(frames, grains, strict=True):  # this takes most of the time, so no array is allocated again
        np.copyto(picture, ground)
        for start, stop, width, p in islice(strokes, len(PARTS)):
            line(picture, start, stop, edges[p], width + 2, style, shift)
            line(picture, start, stop, colours[p], width, style, shift)
        cv2.resize(picture, (size, size), small, interpolation=cv2.INTER_AREA)
        np.add(small, grain, noisy)
        noisy.clip(0, 255, out=noisy)
        np.copyto(frame, noisy, casting="unsafe")
    return frames


def depth(joints: np.ndarray, camera: Camera, size: int, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Render distances along the optical axis in mm, (T, size, size, 1) uint16; 0 if unknown.

    The error grows with the square of the distance, as for a Kinect (Khoshelham and Elberink, 2012).

    Args:
        joints: Joint positions in camera coordinates, (T, 20, 3).
        camera: The camera.
        size: Height and width in pixels.
        noise: Factor for errors and lost pixels.
        rng: Random generator.
    """
    big = size * _OVERSAMPLING
    room = _room(camera, big).astype(np.uint16)
    points, widths, order = _strokes(joints, camera, big)
    near = joints[:, _ENDS, 2] - _RADII[:, None]
    frames = np.empty((len(joints), size, size), np.uint16)
    error = 1.425e-6 * noise
    strokes = _painted(order, points[:, :, 0], points[:, :, 1], widths, near)
    for frame, grain in zip(frames, _grain(rng, len(joints), (size, size)), strict=True):
        picture = room.copy()
        for start, stop, width, away, _ in islice(strokes, len(PARTS)):
            _slanted(picture, start, stop, width, away)
        true = picture[::_OVERSAMPLING, ::_OVERSAMPLING].astype(np.float32)
        frame[:] = (true + error * true * true * grain).clip(0, 65535)
    if noise:
        frames[rng.random(frames.shape, dtype=np.float32) < 0.01 * noise] = 0
    return frames[..., None]


def _grain(rng: np.random.Generator, length: int, shape: tuple[int, ...], scale: float = 1.0) -> Iterator[np.ndarray]:
    """Return images of normal noise with standard deviation `scale`.

    They are random crops of a larger image, since drawing noise for each pixel would take most of the time.
    """
    margin = 32
    bank = rng.standard_normal((shape[0] + margin, shape[1] + margin, *shape[2:]), dtype=np.float32)
    bank *= scale
    for row, column in rng.integers(0, margin, (length, 2)).tolist():
        yield bank[row : row + shape[0], column : column + shape[1]]


def _strokes(joints: np.ndarray, camera: Camera, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return end points in 1/16 pixel, (T, P, 2, 2), widths in pixels, (T, P), and parts from back to front, for each frame."""
    points = np.round(camera.project(joints, size)[:, _ENDS] * (1 << _SHIFT)).astype(int)
    away = joints[:, _ENDS, 2].mean(axis=2)
    widths = np.maximum(1, np.round(2 * _RADII * camera.focal(size) / away)).astype(int)
    return points, widths, np.argsort(-(away - _RADII), axis=1, kind="stable")


def _painted(order: np.ndarray, *values: np.ndarray) -> Iterator[tuple[Any, ...]]:
    """Yield the values of all parts of all frames, from back to front, with the index of the part last; pairs as tuples.

    No list of pairs is stored, which Python's garbage collector would search for a long time.

    Args:
        order: Parts from back to front, (T, P).
        values: Values of the parts, (T, P) or (T, P, 2).
    """
    columns: list[Iterable[Any]] = []
    for each in values:
        ordered = np.take_along_axis(each.reshape(*order.shape, -1), order[..., None], axis=1)
        numbers = ordered.reshape(order.size, -1).T.tolist()
        columns.append(zip(*numbers, strict=True) if len(numbers) > 1 else numbers[0])
    return zip(*columns, order.ravel().tolist(), strict=True)


def _slanted(picture: np.ndarray, first: tuple[int, int], last: tuple[int, int], width: int, away: tuple[float, float]) -> None:
    """Draw a part whose distance changes along its length as segments of constant distance, the far ones first."""
    (x0, y0), (x1, y1) = first, last
    count = _PIECES if abs(away[1] - away[0]) > _EVEN else 1
    for i in range(count) if away[0] > away[1] else range(count - 1, -1, -1):
        u, v = i / count, (i + 1) / count
        start = int(x0 + u * (x1 - x0)), int(y0 + u * (y1 - y0))
        stop = int(x0 + v * (x1 - x0)), int(y0 + v * (y1 - y0))
        middle = (u + v) / 2
        cv2.line(picture, start, stop, 1000 * (away[0] + middle * (away[1] - away[0])), width, cv2.LINE_8, _SHIFT)


def _room(camera: Camera, size: int) -> np.ndarray:
    """Return the distance of the floor and of the wall behind the person in mm, (size, size)."""
    below = np.maximum(np.arange(size) - (size - 1) / 2, 1e-6)
    floor = camera.focal(size) * camera.height / below
    return np.repeat(1000 * np.minimum(floor, camera.distance + _WALL)[:, None], size, axis=1)


def _background(camera: Camera, look: Look, size: int) -> np.ndarray:
    room = _room(camera, size)[:, :1]  # constant from left to right
    is_floor = (room < room.max())[..., None]
    slope = np.linspace(15, -15, size)[None, :, None]
    ground = np.where(is_floor, look.floor, look.wall) + look.blotches(size)
    ground += slope
    return ground
