"""Guess what arrays in ``.npz``, ``.npy``, HDF5, Parquet and ``.ts`` files and in Hugging Face folders hold."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from kdcore_datasets.new.array_shapes import array_shapes
from kdcore_datasets.new.array_units import add_units
from kdcore_datasets.new.file_names import kind_of
from kdcore_datasets.new.guess import FILL_IN, Guess
from kdcore_datasets.new.text_tables import words_of

_LABELS = ("y", "label", "labels", "target", "targets", "activity", "activities", "class", "classes")
_SUBJECTS = ("subject", "subjects", "group", "groups", "user", "users", "s", "person", "participant")
_SETS = ("train", "test", "valid", "validation", "val")
_AXES = ("x", "y", "z")


@dataclass
class _Signals:
    """Arrays that hold one kind of signal of some windows.

    Args:
        names: The arrays: one, or one for each axis.
        shape: Of the first.
        kind: The kind of signal; empty where the names do not say it.
    """

    names: list[str]
    shape: tuple[int, ...]
    kind: str = ""

    @property
    def channels(self) -> int:
        """Number of channels."""
        if len(self.names) > 1:
            return len(self.names)
        return self.shape[2] if ":series" in self.names[0] else min(self.shape[1:])


@dataclass
class _Set:
    """Signals of the same windows, and where their labels and subjects are."""

    labels: list[str]
    subjects: list[str]
    signals: list[_Signals] = field(default_factory=list)


def guess_arrays(root: Path, files: Sequence[str], rate: float | None) -> Guess | None:
    """The dataset ``windows`` for files of arrays with a window in each row; None if there are none."""
    shapes = array_shapes(root, files)
    found: dict[tuple[object, ...], _Set] = {}
    signals = list(_signals(shapes))
    used = {name for each in signals for name in each.names}
    others = {name: shape for name, shape in shapes.items() if name not in used}
    for each in signals:
        first = each.names[0]
        there = [name for name, shape in others.items() if shape[:1] == each.shape[:1] and _same_part(first, name, used)]
        labels, subjects = (_nearest(first, there, role) for role in ("labels", "subjects"))
        same = found.setdefault((_set_of(first), each.shape[0], *(labels or each.names)), _Set(labels, subjects))
        same.signals.append(each)
    if not found:
        return None
    sets: dict[str, Any] = {}
    guess = Guess({"name": "windows", "root": str(root.absolute()), "rate": rate, "sets": sets}, {})
    for each in found.values():
        _add_set(guess, _part(each.signals[0].names[0], sets), each)
    _add_axes(guess, [each for each in signals if len(each.shape) == 3])
    add_units(guess, root)
    if rate is None:
        guess.why["rate",] = f"{FILL_IN}: samples per second"
    alone = {"train", "test"} <= set(sets) and not any("subjects" in each for each in sets.values())
    guess.protocol = "cross-session" if alone else "cross-subject"
    return guess


def _signals(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[_Signals]:
    """Arrays of windows: those with three axes, and two or more with two, one for each axis of a sensor."""
    single: dict[tuple[object, ...], list[str]] = {}
    for name, shape in shapes.items():
        words = list(words_of(_bare(name)))
        kind = next(filter(None, map(kind_of, words)), "")
        if len(shape) == 3:
            yield _Signals([name], shape, kind)
        elif len(shape) == 2 and words and words[-1] in _AXES and (kind or len(words) == 1):
            rest = tuple(word for word in words if word not in _AXES)
            single.setdefault((_file(name), _group(name), shape[0], rest, kind), []).append(name)
    for (*_, kind), names in single.items():
        if len(names) > 1:
            yield _Signals(sorted(names), shapes[names[0]], str(kind) or "accelerometer")


def _add_set(guess: Guess, part: str, found: _Set) -> None:
    signals: dict[str, list[str]] = {}
    channels: dict[str, list[int]] = {}
    for each in found.signals:
        if each.channels == 6 and not each.kind and not signals:
            signals |= {"accelerometer": each.names, "gyroscope": each.names}
            channels |= {"accelerometer": [0, 1, 2], "gyroscope": [3, 4, 5]}
            continue
        kind = each.kind or ("accelerometer" if each.channels == 3 else "signal")
        own = "-".join(words_of(_bare(each.names[0]))) or kind
        signals[kind if kind not in signals else own] = each.names
    made: dict[str, Any] = {"signals": signals, **({"channels": channels} if channels else {})}
    made["labels"] = found.labels[0] if len(found.labels) == 1 else None
    if made["labels"] is None:
        several = f"; {' or '.join(found.labels)}" if found.labels else ""
        guess.why["sets", part, "labels"] = (
            f"{FILL_IN}: the file, and after a colon the array, with a label for each window{several}"
        )
    if len(found.subjects) == 1:
        made["subjects"] = found.subjects[0]
    else:
        several = f"several arrays may hold the subjects ({' or '.join(found.subjects)})" if found.subjects else ""
        several = several or "no array of subjects"
        guess.why["sets", part] = f"{several}: all windows of {part!r} count as one subject's"
    guess.dataset["sets"][part] = made
    guess.why["sets", part, "signals"] = f"shape {found.signals[0].shape}; the kinds of signal are a guess"


def _add_axes(guess: Guess, signals: Sequence[_Signals]) -> None:
    if not signals:
        return
    first = signals[0]
    whole = ":series" in first.names[0] or first.shape[1] >= first.shape[2]
    guess.dataset["axes"] = "windows-time-channels" if whole else "windows-channels-time"
    if not all(":series" in each.names[0] for each in signals):
        guess.why["axes",] = f"the {first.channels} along the shorter axis are taken for channels"


def _nearest(signals: str, there: Sequence[str], role: str) -> list[str]:
    """The arrays that may hold the labels or subjects of some windows: those whose names are most like theirs.

    Args:
        signals: The array of windows.
        there: Arrays about the same windows.
        role: ``labels`` or ``subjects``.
    """
    apart = {other: len(_words(signals) ^ _words(other)) for other in there if _role(other) == role}
    return [other for other, words in apart.items() if words == min(apart.values())]


def _same_part(signals: str, other: str, used: set[str]) -> bool:
    """True if an array belongs to the same part of the data as `signals`, as far as names of files and groups tell.

    An array in another file that holds windows itself, one of the `used` arrays, is about those.
    """
    if _set_of(other) not in ("", _set_of(signals)):
        return False
    if _file(signals) == _file(other):
        return f"{_group(signals)}/".startswith(f"{_group(other)}/".lstrip("/"))
    numbers = [set(re.findall(r"\d+", Path(_file(each)).stem)) for each in (signals, other)]
    near = Path(_file(signals)).parent == Path(_file(other)).parent and _set_of(signals) == _set_of(other)
    return near and _file(other) not in set(map(_file, used)) and numbers[1] <= numbers[0]


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z]+|\d+", name.lower()))


def _file(name: str) -> str:
    return name.partition(":")[0]


def _group(name: str) -> str:
    """The path of the HDF5 group that holds an array; empty if it is the file itself."""
    inside = name.partition(":")[2]
    return inside.rpartition("/")[0]


def _bare(name: str) -> str:
    """Name of an array, without those of the groups and the file that hold it."""
    file, _, inside = name.partition(":")
    return inside.rpartition("/")[2] or Path(file).stem


def _set_of(name: str) -> str:
    words = re.findall(r"[a-z]+", name.lower())
    return next((each for each in _SETS if each in words), "")


def _part(name: str, taken: Mapping[str, object]) -> str:
    """A name for a set that is not taken."""
    wanted = _set_of(name) or PurePosixPath(_group(name)).name or Path(_file(name)).stem or "all"
    return wanted if wanted not in taken else name.replace(":", "-").replace("/", "-")


def _role(name: str) -> str:
    words = re.findall(r"[a-z]+", name.rpartition(":")[2].lower())
    if any(word in _LABELS for word in words):
        return "labels"
    return "subjects" if any(word in _SUBJECTS for word in words) else ""
