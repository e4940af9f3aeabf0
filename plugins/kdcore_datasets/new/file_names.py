"""Detection of the parts of file names: subject, action, trial, or device."""

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
"""Prefixes of words that describe actions."""
KINDS = {
    "accelerometer": ("acc", "accel", "acceleration", "accelerometer", "linearacceleration"),
    "gyroscope": ("gyr", "gyro", "gyroscope", "angularvelocity", "rotationrate"),
    "magnetometer": ("mag", "magnetometer", "magneticfield"),
    "orientation": ("ori", "orient", "orientation", "quat", "quaternion", "roll", "pitch", "yaw", "azimuth"),
}
"""Words that indicate each kind of signal."""

_JOINERS = ("", "-", " ")
"""Characters that may join words, as in ``swipe-left``. One is used if more names then have the same structure."""
_MOST_DEVICES = 8


def _tokens(path: str, joiner: str = "") -> list[str]:
    letters = r"[^\W\d_]+"
    word = f"{letters}(?:{joiner}{letters})*" if joiner else letters
    return re.findall(rf"\d+|{word}|[\W_]", path)


def kind_of(word: str) -> str:
    """Return the kind of signal that a word indicates, several joined by hyphens, or an empty string."""
    return next((kind for kind, words in KINDS.items() if set(word.lower().split("-")) & set(words)), "")


@dataclass
class Names:
    """A pattern shared by the names of several files.

    Args:
        patterns: Patterns by device. The device is empty if there is only one.
        files: Files by device, relative to the folder.
        fields: (reason, values that occur) by placeholder.
        others: Files whose names do not match.
    """

    patterns: dict[str, str]
    files: dict[str, list[str]]
    fields: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)


def read_names(paths: Sequence[str], labelled: bool, headers: Mapping[str, str] | None = None) -> Names:
    """Detect the pattern of file names.

    Args:
        paths: Paths relative to the folder, with forward slashes.
        labelled: Whether a column contains the action, so that names need not.
        headers: Headers of some of the files. A word that determines the header is the name of a device.
    """
    by_joiner = {joiner: Counter(shape_of(path, joiner) for path in paths) for joiner in _JOINERS}
    joiner = max(_JOINERS, key=lambda each: max(by_joiner[each].values()))
    shapes = by_joiner[joiner]
    shape = max(shapes, key=lambda each: (shapes[each], each))
    chosen = [path for path in paths if shape_of(path, joiner) == shape]
    rows = [_tokens(path, joiner) for path in chosen]
    columns = [tuple(row[position] for row in rows) for position in range(len(rows[0]))]
    by_header = [column for column in columns if _determines_header(column, [(headers or {}).get(path) for path in chosen])]
    meaning = _meanings(columns, labelled, by_header)
    devices = [column for column, (name, _) in meaning.items() if name == "device"]
    names = Names({}, {}, others=[path for path in paths if shape_of(path, joiner) != shape])
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


def _determines_header(values: Sequence[str], headers: Sequence[str | None]) -> bool:
    """Return whether all files with the same word have the same header, and files with other words have others."""
    if not values[0].isalpha() or not 1 < len(set(values)) <= _MOST_DEVICES:
        return False
    found: dict[str, set[str]] = {value: set() for value in values}
    for value, header in zip(values, headers, strict=True):
        if header is not None:
            found[value].add(header)
    return all(len(each) == 1 for each in found.values()) and len(set.union(*found.values())) == len(found)


def _device(words: Sequence[str]) -> str:
    """Return a device name from several words, with words for the same kind of signal used once."""
    found: list[str] = []
    for word in words:
        if not (kind_of(word) and any(kind_of(each) == kind_of(word) for each in found)):
            found.append(word)
    return "-".join(found)


def shape_of(path: str, joiner: str = "") -> tuple[str, ...]:
    """Return the structure of a name: digits, letters, and the separators themselves."""
    return tuple("9" if part[0].isdigit() else "a" if part[0].isalpha() else part for part in _tokens(path, joiner))


def _meanings(
    columns: Sequence[tuple[str, ...]], labelled: bool, devices: Sequence[tuple[str, ...]]
) -> dict[tuple[str, ...], tuple[str, str]]:
    """Return (placeholder or ``device``, reason) for each varying part of the names, given as its values."""
    found: dict[tuple[str, ...], tuple[str, str]] = {}
    action = None if labelled else _action([column for column in columns if column not in devices])
    for position, column in enumerate(columns):
        if len(set(column)) == 1 or column in found:
            continue
        values = {value.lower() for value in column}
        if values <= set(DEVICES) or column in devices:
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
    """Return the varying words that are most likely actions: those with known action words, or else the last."""
    words = [each for each in columns if each[0].isalpha() and len(set(each)) > 1]
    words = [each for each in words if not {value.lower() for value in each} <= set(DEVICES)]
    known = [each for each in words if any(value.lower().startswith(ACTIVITIES) for value in each)]
    return next(reversed(known or words), None)


def _taken(found: Mapping[tuple[str, ...], tuple[str, str]]) -> set[str]:
    return {name for name, _ in found.values()}


def _prefix(before: Sequence[str]) -> str:
    return next((each for each in reversed(before) if each.isalpha()), "")


def _prefixed(before: Sequence[str], taken: set[str]) -> str:
    """Return the placeholder indicated by the word before a number, or an empty string if there is none or it is used."""
    word = _prefix(before)
    known = {"subject": SUBJECT, "action": ACTION, "trial": TRIAL, **OTHERS}
    return next((name for name, words in known.items() if word in words and name not in taken), "")


def _some(values: set[str]) -> str:
    ordered = sorted(values)
    return ", ".join(ordered[:4]) + (" …" if len(ordered) > 4 else "")
