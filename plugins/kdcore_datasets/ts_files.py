"""Reader for time series in ``.ts`` files, the text format of aeon, sktime and the UEA and UCR archives."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from kdcore import DataError
from kdcore_datasets.delimited import open_text

NAMES = ("series", "labels")
"""Content of a file: the series, (cases, time, channels), and one label per series."""

_MISSING = ("?", "nan")


@lru_cache(maxsize=8)
def read_ts(path: Path, stamp: int) -> dict[str, np.ndarray]:
    """Read the series and labels of a file. There are no labels if the header contains ``@classLabel false``.

    The header consists of lines that start with ``@`` and ends with ``@data``. Each further line is a case: dimensions
    separated by ``:``, values by ``,``, and the class label last. Missing values, ``?``, become NaN. Series of unequal lengths
    become an array of (time, channels) arrays. Format: https://www.aeon-toolkit.org/en/stable/api_reference/file_specifications/ts.html

    Args:
        path: File, which may be compressed.
        stamp: Modification time, so that a changed file is read again.

    Raises:
        DataError: If the file has time stamps or regression targets, or a line is invalid. The message names the line.
    """
    del stamp
    cases, labels = [], []
    with open_text(path) as file:
        lines = ((number, line.strip()) for number, line in enumerate(file, start=1))
        content = ((number, line) for number, line in lines if line and not line.startswith(("#", "%")))
        header = _header(content, path)
        known = _labels(header)
        count = 0
        for number, line in content:
            parts = [part.strip() for part in line.split(":")]
            if known is not None:
                labels.append(_label(parts, known, f"{path}: line {number}"))
            cases.append(_case(parts, f"{path}: line {number}"))
            count = count or cases[0].shape[1]
            if cases[-1].shape[1] != count:
                raise DataError(f"{path}: line {number} has {cases[-1].shape[1]} dimensions, and the lines before have {count}")
    if not cases:
        raise DataError(f"{path}: has no cases")
    declared = header.get("@dimensions", header.get("@dimension", ""))
    if declared.isdecimal() and int(declared) != count:
        raise DataError(f"{path}: its header says {declared} dimensions, and its lines have {count}")
    return {"series": _stacked(cases), **({"labels": np.array(labels)} if known is not None else {})}


def _header(content: Iterator[tuple[int, str]], path: Path) -> dict[str, str]:
    """Return the header as a mapping from lower-case keys to the rest of their lines."""
    found: dict[str, str] = {}
    for number, line in content:
        if not line.startswith("@"):
            raise DataError(f"{path}: line {number}: expected a header of lines that begin with @, and then @data")
        key, _, rest = line.partition(" ")
        if key.lower() == "@data":
            break
        found[key.lower()] = rest.strip()
    else:
        raise DataError(f"{path}: has no line @data; is it a .ts file of aeon or sktime?")
    if _is_true(found.get("@timestamps", "")):
        raise DataError(
            f"{path}: has time stamps, which are not read from .ts files; resample the series and save them without"
        )
    if _is_true(found.get("@targetlabel", "")):
        raise DataError(f"{path}: holds regression targets (@targetlabel true), not classes")
    return found


def _labels(header: dict[str, str]) -> tuple[str, ...] | None:
    """Return the class labels listed in the header, which may be empty; None if the cases have no label."""
    words = header.get("@classlabel", "false").split()
    if not _is_true(words[0] if words else ""):
        return None
    return tuple(words[1:])


def _is_true(text: str) -> bool:
    return text.lower().startswith("true")


def _label(parts: list[str], known: tuple[str, ...], place: str) -> str:
    if len(parts) < 2:
        raise DataError(f"{place}: has no class label after the last ':'")
    label = parts.pop()
    if known and label not in known:
        raise DataError(f"{place}: {label!r} is not one of the header's class labels {', '.join(known[:20])}")
    return label


def _case(parts: list[str], place: str) -> np.ndarray:
    """Return the dimensions in a line as an array, (time, channels)."""
    if any("(" in part for part in parts):
        raise DataError(f"{place}: has time stamps, which are not read from .ts files")
    try:
        rows = [
            [np.nan if (cell := text.strip()).lower() in _MISSING else float(cell) for text in part.split(",")]
            for part in parts
        ]
    except ValueError as error:
        raise DataError(f"{place}: {error}") from error
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1:
        raise DataError(
            f"{place}: its dimensions have from {lengths[0]} to {lengths[-1]} values; they must have the same number"
        )
    return np.array(rows, dtype=np.float64).T


def _stacked(cases: list[np.ndarray]) -> np.ndarray:
    if len({len(case) for case in cases}) == 1:
        return np.stack(cases)
    found = np.empty(len(cases), dtype=object)
    for number, case in enumerate(cases):
        found[number] = case
    return found
