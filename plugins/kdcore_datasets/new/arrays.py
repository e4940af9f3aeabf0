"""Detection of arrays in ``.npz``, ``.npy``, HDF5 and ``.ts`` files: windows, labels, subjects."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdcore import refuse_bomb
from kdcore_datasets import hdf5
from kdcore_datasets.new.guess import FILL_IN, Guess
from kdcore_datasets.ts_files import read_ts

_LABELS = ("y", "label", "labels", "target", "targets", "activity", "activities", "class", "classes")
_SUBJECTS = ("subject", "subjects", "group", "groups", "user", "users", "s", "person", "participant")


def guess_arrays(root: Path, files: Sequence[str], rate: float | None) -> Guess | None:
    """Return the dataset ``windows`` for files of arrays with one window per row, or None if there are none."""
    shapes = _shapes(root, [file for file in files if file.endswith((".npz", ".npy", ".ts", *hdf5.SUFFIXES))])
    sets: dict[str, Any] = {}
    why: dict[tuple[str, ...], str] = {}
    channels, axes = 0, ""
    for name, shape in shapes.items():
        if len(shape) != 3:
            continue
        part = _part(name, sets)
        channels, axes = min(shape[1:]), "windows-time-channels" if shape[1] >= shape[2] else "windows-channels-time"
        if ":series" in name:
            channels, axes = shape[2], "windows-time-channels"
        same = {other: _role(other) for other, its in shapes.items() if its[:1] == shape[:1] and _beside(name, other)}
        made: dict[str, Any] = {"signals": _signals(name, channels)}
        if channels == 6:
            made["channels"] = {"accelerometer": [0, 1, 2], "gyroscope": [3, 4, 5]}
        made["labels"] = next((other for other, role in same.items() if role == "labels"), None)
        subjects = next((other for other, role in same.items() if role == "subjects"), None)
        if made["labels"] is None:
            why["sets", part, "labels"] = f"{FILL_IN}: the file, and after a colon the array, with a label for each window"
        if subjects is None:
            why["sets", part] = f"no array of subjects: all windows of {part!r} are assigned to one subject"
        made |= {"subjects": subjects} if subjects else {}
        sets[part] = made
        why["sets", part, "signals"] = f"shape {shape}; the kinds of signals are a guess"
    if not sets:
        return None
    section: dict[str, Any] = {"name": "windows", "root": str(root.absolute()), "rate": rate, "sets": sets, "axes": axes}
    if not all(":series" in str(each["signals"]) for each in sets.values()):
        why["axes",] = f"the {channels} along the shorter axis are assumed to be channels"
    if rate is None:
        why["rate",] = f"{FILL_IN}: samples per second"
    alone = {"train", "test"} <= set(sets) and not any("subjects" in each for each in sets.values())
    return Guess(section, why, protocol="cross-session" if alone else "cross-subject")


def _shapes(root: Path, files: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of arrays by file, and name after a colon. Unreadable files are skipped."""
    found: dict[str, tuple[int, ...]] = {}
    for file in files[:200]:
        try:
            if file.endswith(hdf5.SUFFIXES):
                found |= {f"{file}:{name}": shape for name, shape in hdf5.array_shapes(root / file).items()}
                continue
            if file.endswith(".ts"):
                found |= {f"{file}:{name}": _shape(its) for name, its in read_ts(root / file, 0).items()}
                continue
            refuse_bomb(root / file)
            loaded = np.load(root / file, mmap_mode="r", allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                found[file] = loaded.shape
            else:
                with loaded:
                    found |= {f"{file}:{name}": loaded[name].shape for name in loaded.files}
        except Exception:  # unreadable files are skipped, whatever the reason
            continue
    return found


def _shape(array: np.ndarray) -> tuple[int, ...]:
    """Return the shape of an array; for series of unequal lengths, that of the first."""
    return (len(array), *array[0].shape) if array.dtype == object else array.shape


def _beside(signals: str, other: str) -> bool:
    """Return whether an array belongs to the same part of the data as `signals`: the same file, or a file of the same set."""
    file, other_file = signals.partition(":")[0], other.partition(":")[0]
    if file == other_file:
        return other != signals
    return Path(file).parent == Path(other_file).parent and _set_of(file) == _set_of(other_file)


def _set_of(name: str) -> str:
    words = re.findall(r"[a-z]+", name.lower())
    return next((each for each in ("train", "test", "valid", "validation", "val") if each in words), "")


def _part(name: str, taken: Mapping[str, object]) -> str:
    """Return an unused name for a set."""
    wanted = _set_of(name) or Path(name.partition(":")[0]).stem
    return wanted if wanted not in taken else name.replace(":", "-").replace("/", "-")


def _role(name: str) -> str:
    words = re.findall(r"[a-z]+", name.rpartition(":")[2].lower())
    if any(word in _LABELS for word in words):
        return "labels"
    return "subjects" if any(word in _SUBJECTS for word in words) else ""


def _signals(name: str, channels: int) -> dict[str, list[str]]:
    if channels == 6:
        return {"accelerometer": [name], "gyroscope": [name]}
    return {"accelerometer" if channels == 3 else "signal": [name]}
