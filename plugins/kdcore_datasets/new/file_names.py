"""Guess what parts of file names stand for: subject, action, trial, or the device."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

SUBJECT = ("s", "sub", "subj", "subject", "user", "u", "p", "participant", "person", "volunteer", "id")
ACTION = ("a", "act", "action", "activity", "class", "label", "gesture")
TRIAL = ("t", "tr", "trial", "r", "rep", "repetition", "run", "e", "exp", "experiment", "rec", "recording")
OTHERS = {"session": ("ses", "session", "day"), "view": ("c", "cam", "camera", "v", "view"), "scene": ("scene", "room")}
DEVICES = (
    "phone", "watch", "smartphone", "smartwatch", "sp", "sw", "wrist", "ankle", "chest", "hand", "arm", "leg", "hip", "waist",
    "thigh", "head", "foot", "pocket", "belt", "back", "left", "right", "forearm", "upperarm", "shin",
    "acc", "accel", "accelerometer", "gyr", "gyro", "gyroscope", "mag", "magnetometer", "imu", "inertial",
)  # fmt: skip
ACTIVITIES = (
    "walk",
    "run",
    "jog",
    "sit",
    "stand",
    "lie",
    "lying",
    "jump",
    "stair",
    "cycl",
    "bike",
    "climb",
    "wave",
    "fall",
    "sleep",
    "squat",
)
"""Beginnings of words that mean what somebody does."""
KINDS = {
    "accelerometer": ("acc", "accel", "acceleration", "accelerometer", "linearacceleration"),
    "gyroscope": ("gyr", "gyro", "gyroscope", "angularvelocity", "rotationrate"),
    "magnetometer": ("mag", "magnetometer", "magneticfield"),
    "orientation": ("ori", "orient", "orientation", "quat", "quaternion", "roll", "pitch", "yaw", "azimuth"),
}
"""Kind of signal → words that mean it."""

_TOKEN = re.compile(r"\d+|[^\W\d_]+|[\W_]")


def kind_of(word: str) -> str:
    """The kind of signal that a word means, or one of several with a hyphen between them; empty if none."""
    return next((kind for kind, words in KINDS.items() if set(word.lower().split("-")) & set(words)), "")


@dataclass
class Names:
    """The pattern that the names of some files share.

    Args:
        patterns: Device → pattern of its files; the device is empty if there is only one.
        files: Device → its files, relative to the folder.
        fields: Placeholder → (reason, values that occur).
        others: Files whose names are built otherwise.
    """

    patterns: dict[str, str]
    files: dict[str, list[str]]
    fields: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)


def read_names(paths: Sequence[str], labelled: bool) -> Names:
    """Compare the names of files.

    Args:
        paths: Relative to the folder, with forward slashes.
        labelled: True if a column says the action, so that names need not.
    """
    shapes = Counter(map(shape_of, paths))
    shape = max(shapes, key=lambda each: (shapes[each], each))
    chosen = [path for path in paths if shape_of(path) == shape]
    rows = [_TOKEN.findall(path) for path in chosen]
    columns = [tuple(row[position] for row in rows) for position in range(len(rows[0]))]
    meaning = _meanings(columns, labelled)
    devices = [column for column, (name, _) in meaning.items() if name == "device"]
    names = Names({}, {}, others=[path for path in paths if shape_of(path) != shape])
    for number, (path, row) in enumerate(zip(chosen, rows, strict=True)):
        device = _device([column[number] for column in devices])
        names.files.setdefault(device, []).append(path)
        pieces = [
            f"{{{meaning[column][0]}}}" if column in meaning and column not in devices else token
            for token, column in zip(row, columns, strict=True)
        ]
        names.patterns.setdefault(device, "".join(pieces))
    names.fields = {name: (why, sorted(set(column))) for column, (name, why) in meaning.items() if name != "device"}
    return names


def _device(words: Sequence[str]) -> str:
    """One name of several words, of which those that mean the same kind of signal are said once."""
    found: list[str] = []
    for word in words:
        if not (kind_of(word) and any(kind_of(each) == kind_of(word) for each in found)):
            found.append(word)
    return "-".join(found)


def shape_of(path: str) -> tuple[str, ...]:
    """The kinds of the parts of a name: digits, letters, and the separators themselves."""
    return tuple("9" if part[0].isdigit() else "a" if part[0].isalpha() else part for part in _TOKEN.findall(path))


def _meanings(columns: Sequence[tuple[str, ...]], labelled: bool) -> dict[tuple[str, ...], tuple[str, str]]:
    """Varying part of the names, as its value in each file → (placeholder or ``device``, reason)."""
    found: dict[tuple[str, ...], tuple[str, str]] = {}
    action = None if labelled else _action(columns)
    for position, column in enumerate(columns):
        if len(set(column)) == 1 or column in found:
            continue
        values = {value.lower() for value in column}
        if values <= set(DEVICES):
            found[column] = ("device", "")
            continue
        before = [each[0].lower() for each in columns[max(0, position - 2) : position] if len(set(each)) == 1]
        name = _prefixed(before, _taken(found)) if column[0].isdigit() else ""
        if name:
            found[column] = (name, f"the number after '{_prefix(before)}' in the names")
        elif column == action:
            found[column] = ("action", f"words that vary in the names: {_some(values)}")
        else:
            found[column] = ("", f"a part of the names that varies: {_some(values)}")
    wanted = ["subject", *([] if labelled else ["action"]), "trial", "session", "scene", "view"]
    for column, (name, why) in found.items():
        if not name:
            free = next((each for each in wanted if each not in _taken(found)), "")
            found[column] = (free or "view", why)
    return found


def _action(columns: Sequence[tuple[str, ...]]) -> tuple[str, ...] | None:
    """The words that vary and are most likely actions: those that have known ones among them, else the last."""
    words = [each for each in columns if each[0].isalpha() and len(set(each)) > 1]
    words = [each for each in words if not {value.lower() for value in each} <= set(DEVICES)]
    known = [each for each in words if any(value.lower().startswith(ACTIVITIES) for value in each)]
    return next(reversed(known or words), None)


def _taken(found: Mapping[tuple[str, ...], tuple[str, str]]) -> set[str]:
    return {name for name, _ in found.values()}


def _prefix(before: Sequence[str]) -> str:
    return next((each for each in reversed(before) if each.isalpha()), "")


def _prefixed(before: Sequence[str], taken: set[str]) -> str:
    """The placeholder that the word before a number means; empty if none, or if it is taken."""
    word = _prefix(before)
    known = {"subject": SUBJECT, "action": ACTION, "trial": TRIAL, **OTHERS}
    return next((name for name, words in known.items() if word in words and name not in taken), "")


def _some(values: set[str]) -> str:
    ordered = sorted(values)
    return ", ".join(ordered[:4]) + (" …" if len(ordered) > 4 else "")
