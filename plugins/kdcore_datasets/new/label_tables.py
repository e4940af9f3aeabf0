"""Detection of a table with one row per recording, which contains labels and subjects."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from kdcore_datasets.delimited import open_text
from kdcore_datasets.new.guess import FILL_IN, Guess
from kdcore_datasets.new.text_tables import LABEL_NAMES, SUBJECT_NAMES, plain
from kdcore_datasets.sensor_csv.recording_table import file_names

_ROWS, _FILES, _DELIMITERS = 2000, 20, (",", ";", "\t")


def add_label_table(guess: Guess, root: Path, recordings: Sequence[str], others: Iterable[str]) -> str:
    """Add the first of `others` with a column that names recordings, and return its name; empty if there is none.

    Args:
        guess: Detected dataset without labels or without subjects.
        root: Folder of the recordings.
        recordings: Files of the recordings, relative to `root`.
        others: Other text files.
    """
    known = {name for file in recordings for name in file_names(root / file, root)}
    for file in islice(others, _FILES):
        for delimiter in _DELIMITERS:
            rows = _rows(root / file, delimiter)
            paths = [n for n in range(len(rows[0])) if _share(rows, n, known) > 0.5] if rows else []
            if paths:
                _add(guess, file, delimiter, rows[0], paths[0])
                return file
    return ""


def _rows(path: Path, delimiter: str) -> list[list[str]]:
    with suppress(OSError, UnicodeDecodeError, csv.Error), open_text(path) as file:
        rows = [row for row in islice(csv.reader(file, delimiter=delimiter), _ROWS) if row]
        if len(rows) > 1 and len(rows[0]) > 1 and all(len(row) == len(rows[0]) for row in rows):
            return rows
    return []


def _share(rows: Sequence[Sequence[str]], column: int, known: set[str]) -> float:
    """Return the share of cells below the header that name a recording."""
    return sum(row[column].strip().replace("\\", "/") in known for row in rows[1:]) / (len(rows) - 1)


def _add(guess: Guess, file: str, delimiter: str, header: Sequence[str], path: int) -> None:
    names = [plain(name) for name in header]
    rest = [header[n] for n in range(len(header)) if n != path]
    columns: dict[str, str | None] = {}
    for field, what, wanted in (("subject", "subjects", SUBJECT_NAMES), ("action", "labels", LABEL_NAMES)):
        columns[field] = next((header[n] for n, name in enumerate(names) if name in wanted and n != path), None)
        if columns[field] is None:
            guess.why["table", "columns", field] = f"{FILL_IN}: the column of {what}, one of {', '.join(rest)}"
    guess.dataset["table"] = {"file": file, "path": header[path], "columns": columns}
    guess.dataset["table"] |= {"delimiter": delimiter} if delimiter != "," else {}
    guess.why["table",] = "a column of this file names the recordings"
