"""Parser for the text format of Kinect v2 body tracking, in which NTU RGB+D is published."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np

from kdcore import DataError
from kdcore_datasets.file_formats import measurable

JOINTS = 25


def read_skeleton(path: Path, persons: int) -> np.ndarray:
    """Read joint positions in metres, (T, 25, 3, persons). Positions are zero in frames without the person.

    The persons are the bodies with the largest variance of joint positions; of equal ones, those that are visible longest.

    Raises:
        DataError: If the file is damaged, or contains no frames or bodies.
    """
    try:
        lines = path.read_text(encoding="ascii").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    count, bodies = _bodies(_Lines(path, lines))
    main = sorted(bodies.values(), key=lambda seen: (-_variance(seen), -len(seen)))[:persons]
    joints = np.zeros((count, JOINTS, 3, persons), dtype=np.float32)
    for person, seen in enumerate(main):
        for frame, positions in seen.items():
            joints[frame, :, :, person] = positions
    return joints


def _variance(seen: dict[int, np.ndarray]) -> float:
    return float(np.stack(list(seen.values())).var(axis=0).sum())


def _bodies(lines: _Lines) -> tuple[int, dict[str, dict[int, np.ndarray]]]:
    """Return the number of frames, and joint positions, (25, 3), by tracking ID and frame."""
    count = lines.whole_number("number of frames")
    if count == 0:
        raise DataError(f"{lines.path}: holds no frames")
    seen: list[tuple[str, int, int]] = []  # tracking ID, frame, line
    numbers: list[float] = []
    for frame in range(count):
        for _ in range(lines.whole_number("number of bodies")):
            identity = lines.next()[0]
            if lines.whole_number("number of joints") != JOINTS:
                raise lines.wrong(f"a body has {JOINTS} joints")
            seen.append((identity, frame, lines.number))
            numbers += lines.positions(JOINTS)
    lines.end(f"the file continues after the {count} frames that it declares")
    if not seen:
        raise DataError(f"{lines.path}: no body was seen in any of its {count} frames")
    positions = np.array(numbers).reshape(-1, JOINTS, 3)
    if not (fit := measurable(positions).all(axis=2)).all():
        body, joint = np.argwhere(~fit)[0]
        lines.number = seen[body][2] + int(joint) + 1
        raise lines.wrong("a joint's position is not finite, or is too large")
    bodies: dict[str, dict[int, np.ndarray]] = {}
    for (identity, frame, _), joints in zip(seen, positions.astype(np.float32), strict=True):
        bodies.setdefault(identity, {})[frame] = joints
    return count, bodies


class _Lines:
    """Reads the fields of one line after another.

    Attributes:
        number: Number of lines read so far.
    """

    def __init__(self, path: Path, lines: list[str]):
        self.path, self.lines, self.number = path, lines, 0

    def next(self) -> list[str]:
        fields = self.lines[self.number].split() if self.number < len(self.lines) else []
        self.number += 1
        if not fields:
            raise self.wrong("the file ends early")
        return fields

    def end(self, otherwise: str) -> None:
        """Raise an error if the rest of the file contains more than blank lines."""
        for line in self.lines[self.number :]:
            self.number += 1
            if line.split():
                raise self.wrong(otherwise)

    def whole_number(self, what: str) -> int:
        fields = self.next()
        if len(fields) != 1 or not fields[0].isdecimal():
            raise self.wrong(f"expected the {what}, found {' '.join(fields)[:40]!r}")
        return int(fields[0])

    def positions(self, count: int) -> list[float]:
        """Read the first three numbers of each of the next lines."""
        lines = self.lines[self.number : self.number + count]
        try:
            numbers = list(map(float, chain.from_iterable([line.split(None, 3)[:3] for line in lines])))
        except ValueError:
            numbers = []
        if len(numbers) == 3 * count:
            self.number += count
            return numbers
        return [number for _ in range(count) for number in self.position()]  # parse line by line to report the invalid one

    def position(self) -> tuple[float, float, float]:
        fields = self.next()
        try:
            x, y, z = (float(field) for field in fields[:3])
        except ValueError as error:
            raise self.wrong("expected a joint's x, y and z") from error
        return x, y, z

    def wrong(self, what: str) -> DataError:
        return DataError(f"{self.path}: line {self.number}: {what}")
