"""Datasets `skeleton-npz`, `skeleton-json` and `skeleton-text`: your own skeleton clips, one per file."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Gt

from kdcore import DataError, Dataset, IfSet, Sample, Signal, Unusable, refuse_bomb
from kdcore_datasets.file_formats import require_finite, require_shape
from kdcore_datasets.folders import existing_folder
from kdcore_datasets.modalities import FACTORS, SKELETON
from kdcore_datasets.pattern import PathPattern
from kdcore_datasets.protocols.partition import in_order, listed, natural

Axis = Literal["time", "joint", "channel", "person"]


class SkeletonFiles(Dataset):
    """Skeleton clips in .npz, .json or text files, one per file. The path contains subject, action and trial.

    A file is a NumPy ``.npz`` archive with an array called `variable`; JSON (``.json``) with nested lists, at the top level or
    under the key `variable`; or text (``.txt``, ``.csv``) with numbers separated by blanks or commas, one row per frame or
    joint.

    Args:
        root: Folder of the clips.
        pattern: Pattern of their paths relative to `root`. It must contain ``{action}``, which is the label.
        variable: Name of the array in a file.
        axes: Axes of the array. Without ``person``, there is one person.
        skeleton: Skeleton layout: a name such as ``ntu-25``, or joints, edges and centre.
        rate: Frame rate in Hz.
        units: Unit of the positions.
        joints: Rows per frame in a text file with one row per joint. Rows start with x, y and z; further columns, such as a
            confidence, are ignored. None for files with one row per frame, with x, y and z of each joint.
        classes: Class names in the order of the labels. If empty, the actions that occur, in natural order, which requires the
            files.

    Raises:
        ValueError: If the pattern has no action, or axes are missing or repeated.
    """

    def __init__(
        self,
        *,
        root: Path,
        pattern: str,
        variable: str = "joints",
        axes: tuple[Axis, ...] = ("time", "joint", "channel"),
        skeleton: str | dict[str, Any] = "",
        rate: Annotated[float, Gt(0)] = 30.0,
        units: Literal["m", "cm", "mm"] = "m",
        joints: Annotated[Annotated[int, Gt(0)] | None, IfSet()] = None,
        classes: tuple[str, ...] = (),
    ):
        self.root = root
        self.pattern = PathPattern(pattern)
        self.variable = variable
        self.axes = axes
        self.rate = rate
        self.units = units
        self.joints = joints
        self._classes = classes
        self.version = f"1 {variable} {axes} {rate} {units}" + (f" {joints}" if joints else "")
        persons = None if "person" in axes else 1
        self.modalities = {"skeleton": SKELETON.renamed("skeleton", rate=rate, skeleton=skeleton, persons=persons)}
        if "action" not in self.pattern.fields:
            raise ValueError(f"pattern {pattern!r} has no {{action}} to take labels from")
        if sorted({*axes, "person"}) != sorted(SKELETON.axes) or len(set(axes)) != len(axes):
            raise ValueError(f"axes must be time, joint and channel once each, and person or not, in any order, not {axes}")

    @cached_property
    def classes(self) -> Sequence[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Class names; taken from the file paths if the recipe does not list them."""
        found = {file.values["action"] for file in self.pattern.find(existing_folder(self.root))}
        return self._classes or tuple(sorted(found, key=natural))

    def samples(self) -> Sequence[Sample]:
        """Return all clips, by key."""
        found = self.pattern.find(existing_folder(self.root))
        if not found:
            raise DataError(f"{self.root}: holds no file that fits {self.pattern.text!r}")
        self.unusable = [
            Unusable(
                str(file.path),
                "unknown action",
                f"{file.values['action']!r} is not one of the classes {listed(self.classes)}",
                file.values.get("subject", ""),
            )
            for file in found
            if file.values["action"] not in self.classes
        ]
        return in_order(
            Sample(file.key(), self.classes.index(file.values["action"]), {"skeleton": file.path})
            for file in found
            if file.values["action"] in self.classes
        )

    def read(self, sample: Sample, modality: str) -> Signal:
        """Read the joint positions of a clip in metres."""
        path = Path(str(sample.sources[modality]))
        values = require_shape(self._array(path), (None,) * len(self.axes), path, f"the array with axes {', '.join(self.axes)}")
        values = require_finite(values, path, "the array")
        axes = self.axes
        if "person" not in axes:
            values, axes = values[..., np.newaxis], (*axes, "person")
        values = values.transpose([axes.index(axis) for axis in SKELETON.axes])
        return Signal((values * FACTORS[self.units]).astype(np.float32), self.rate)

    def _array(self, path: Path) -> np.ndarray:
        if path.suffix in (".txt", ".csv"):
            return _from_text(path, self.joints).transpose([("time", "joint", "channel").index(axis) for axis in self.axes])
        return _from_json(path, self.variable) if path.suffix == ".json" else _from_npz(path, self.variable)


def _from_text(path: Path, joints: int | None) -> np.ndarray:
    """Read positions (time, joint, 3) from a text file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = np.loadtxt(io.StringIO(text.replace(",", " ")), ndmin=2)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is not a text file of numbers with equal rows ({error})") from error
    count, width = rows.shape
    if joints is None:
        if not count or width % 3:
            raise DataError(f"{path}: a row is a frame, x, y and z of each joint, but it has {width} columns; set joints")
        return rows.reshape(count, width // 3, 3)
    if not count or count % joints or width < 3:
        raise DataError(f"{path}: expected {joints} rows of at least 3 columns for each frame, but it has {count} of {width}")
    return rows[:, :3].reshape(count // joints, joints, 3)


def _from_npz(path: Path, variable: str) -> np.ndarray:
    refuse_bomb(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name] for name in file.files}
    except Exception as error:  # damaged archives raise zip, value or key errors
        with open(path, "rb") as opened:
            start = opened.read(4)
        text = "" if start.startswith(b"PK") else "; clips in text files end in .txt or .csv"
        why = f"begins with {start!r}{text}" if text else str(error)
        raise DataError(f"{path}: is not an .npz file of numbers ({why})") from error
    return _numbers(content, variable, path)


def _from_json(path: Path, variable: str) -> np.ndarray:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is not a JSON file ({error})") from error
    return _numbers(content if isinstance(content, dict) else {variable: content}, variable, path)


def _numbers(content: dict[str, Any], variable: str, path: Path) -> np.ndarray:
    if variable not in content:
        raise DataError(f"{path}: has no {variable!r} (it holds {listed(sorted(content)) or 'nothing'})")
    try:
        return np.asarray(content[variable], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {variable!r} is not an array of numbers with equal rows ({error})") from error
