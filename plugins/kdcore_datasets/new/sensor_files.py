"""Guess the options of ``sensor-csv`` for a folder of text or Parquet files."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from kdcore import DataError
from kdcore_datasets.delimited import open_text
from kdcore_datasets.new.column_units import unit_in
from kdcore_datasets.new.file_names import Names, kind_of, read_names, shape_of
from kdcore_datasets.new.guess import FILL_IN, Guess, Place
from kdcore_datasets.new.label_tables import add_label_table
from kdcore_datasets.new.text_tables import Columns, TextTable, acceleration_unit, read_columns, read_table
from kdcore_datasets.parquet_tables import SUFFIXES as PARQUET
from kdcore_datasets.parquet_tables import first_rows, is_parquet

SUFFIXES = (".csv", ".txt", ".tsv", ".dat", ".log", ".data", ".gz", ".bz2", ".xz", ".zst", *PARQUET)
_SHAPES, _EXAMPLES, _HEADERS = 40, 5, 200
"""Maximum number of file name structures, of files opened for each, and of files whose header is read."""
_SHOWN = 6


def guess_sensor_files(root: Path, files: Sequence[str], rate: float | None) -> Guess | None:
    """The dataset ``sensor-csv`` for text or Parquet files of numbers; None if there are none."""
    tables = _tables(root, [file for file in files if file.endswith(SUFFIXES)])
    if not tables:
        return None
    label = read_columns(next(iter(tables.values()))[1]).label
    recordings = [file for group, _ in tables.values() for file in group]
    names = read_names(recordings, label is not None, _headers(root, recordings))
    section: dict[str, Any] = {"name": "sensor-csv", "root": str(root.absolute()), "devices": {}}
    guess = Guess(section, gaps=True)
    first: tuple[TextTable, Columns] | None = None
    for device, pattern in names.patterns.items():
        table = read_table(root / names.files[device][0])
        if table is None:
            continue
        columns = read_columns(table)
        if not columns.groups:
            guess.notes.append(
                f"{device}: no column of {names.files[device][0]} has the name of a sensor; to read these files, add a device"
            )
            continue
        first = first or (table, columns)
        _add_devices(guess, device, pattern, table, columns, rate)
    if first is None or not section["devices"]:
        return None
    used = {file for group in names.files.values() for file in group}
    others = [file for file in files if file.endswith(SUFFIXES) and file not in {*recordings, *used}]
    found = ""
    if first[1].label is None and not {"action", "subject"} <= names.fields.keys():
        found = add_label_table(guess, root, sorted(used), others)
    _add_key(guess, names, *first)
    if names.others:
        shown = ", ".join(names.others[:3]) + (" …" if len(names.others) > 3 else "")
        guess.notes.append(f"{len(names.others)} files have other names and are skipped: {shown}")
    guess.notes += _unread(file for file in files if file not in {*recordings, found})
    guess.window = first[1].label is not None or len(first[0].rows) > 1500
    return guess


def _unread(files: Iterable[str]) -> list[str]:
    """Return a sentence about files of other kinds."""
    kinds = Counter(Path(file).suffix.lower() or "no suffix" for file in files)
    if not kinds:
        return []
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return [f"files that are not read: {counts}"]


def _headers(root: Path, files: Sequence[str]) -> dict[str, str]:
    """Return the header of each of some files that have one."""
    found = {}
    for file in files if len(files) <= _HEADERS else random.Random(0).sample(list(files), _HEADERS):
        with suppress(OSError, UnicodeDecodeError, EOFError, DataError):
            if is_parquet(file):
                found[file] = ",".join((first_rows(root / file, 1) or ([], []))[0])
            else:
                with open_text(root / file) as opened:
                    line = opened.readline(10_000).strip()
                found |= {file: line} if any(character.isalpha() for character in line) else {}
    return found


def _tables(root: Path, files: Sequence[str]) -> dict[tuple[str, ...], tuple[list[str], TextTable]]:
    """Return (files, table) by structure of the name, most files first; files without signals are skipped."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for file in files:
        groups.setdefault((*shape_of(file), Path(file).suffix), []).append(file)
    found = {}
    for shape, group in sorted(groups.items(), key=lambda item: -len(item[1]))[:_SHAPES]:
        tables = (read_table(root / file) for file in group[:_EXAMPLES])
        table = next((each for each in tables if each is not None and read_columns(each).groups), None)
        if table is not None:
            found[shape] = (group, table)
    return found


def _add_devices(guess: Guess, word: str, pattern: str, table: TextTable, columns: Columns, rate: float | None) -> None:
    """Add the devices of a file: one, or several distinguished by column names."""
    if columns.unused:
        names = [str(table.column_name(n)) for n in columns.unused]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        guess.notes.append(f"{word or 'sensor'}: columns that are not used: {', '.join(names[:_SHOWN])}{more}")
    kinds: dict[str, dict[str, list[int]]] = {}
    for (device, kind), group in columns.groups.items():
        meant = kind_of(word) if kind in ("signal", "accelerometer") and len(columns.groups) == 1 else ""
        kinds.setdefault(device or word or "sensor", {})[meant or kind] = group
    for device, groups in kinds.items():
        place = ("devices", device)
        made: dict[str, Any] = {"pattern": pattern}
        made["columns"] = {kind: [table.column_name(n) for n in group] for kind, group in groups.items()}
        _add_units(guess, made, place, table, groups)
        _add_time(guess, made, place, table, columns, rate)
        made |= {"delimiter": table.delimiter} if table.delimiter != "," else {}
        made |= {"header": False} if not table.names else {}
        made |= {"record_end": table.record_end} if table.record_end else {}
        made |= {"decimal": table.decimal} if table.decimal != "." else {}
        made |= {"comment": table.comment} if table.comment else {}
        if table.encoding != "utf-8":
            made["encoding"] = table.encoding
            guess.why[(*place, "encoding")] = "not UTF-8; check names with accents"
        if columns.gaps or table.record_end:  # some rows of WISDM lack values
            made["missing_values"] = {"interpolate": 0.5}
            some = "some cells are" if columns.gaps else "cells may be"
            guess.why[(*place, "missing_values")] = f"{some} empty or NaN: gaps of up to 0.5 s are filled"
        if not table.names:
            guess.why[(*place, "columns")] = "no header: guessed from the numbers, counted from 0; check them"
        guess.dataset["devices"][device] = made


def _add_units(guess: Guess, made: dict[str, Any], place: Place, table: TextTable, groups: dict[str, list[int]]) -> None:
    units, guessed = {}, False
    for kind, group in groups.items():
        header_units = {unit_in(table.names[n]) for n in group} if table.names else {""}
        if len(header_units) == 1 and "" not in header_units:
            [unit] = header_units
            units |= {kind: unit} if unit not in ("m/s^2", "rad/s") else {}
            if kind == "accelerometer" and acceleration_unit(table, group) not in ("", unit):
                guess.notes.append(
                    f"{place[-1]}: the typical acceleration is not 1 g in {unit}, the unit in the header; check it"
                )
            continue
        guessed = True
        if kind == "accelerometer":
            unit = acceleration_unit(table, group)
            if unit in ("g", "mg"):
                units[kind] = unit
            elif not unit:
                guess.notes.append(
                    f"{place[-1]}: the typical acceleration is not 1 g, so its unit is unknown; m/s^2 is assumed"
                )
        elif kind == "gyroscope":
            largest = max(float(abs(table.numbers(n)).max()) for n in group)
            if largest > 40:
                units[kind] = "deg/s"
            else:
                guess.notes.append(f"{place[-1]}: the unit of the gyroscope is unknown; rad/s is assumed")
    if units:
        made["units"] = units
        why = "guessed from the size of the values; check them" if guessed else "as in the header"
        guess.why[(*place, "units")] = why


def _add_time(guess: Guess, made: dict[str, Any], place: Place, table: TextTable, columns: Columns, rate: float | None) -> None:
    if columns.time is None:
        made["rate"] = rate
        if rate is None:
            guess.why[(*place, "rate")] = f"{FILL_IN}: samples per second; there is no time column"
        return
    made["time_column"] = table.column_name(columns.time)
    if rate is not None:
        made["rate"] = rate
    if not columns.unit:
        made["time_unit"] = None
        guess.why[(*place, "time_unit")] = f"{FILL_IN}: s, ms, us, ns or iso"
        return
    if columns.unit != "s":
        made["time_unit"] = columns.unit
    shown = "" if columns.rate is None else f"; about {columns.rate:.3g} samples per second"
    what = "dates" if columns.unit == "iso" else f"time stamps in {columns.unit}"
    guess.why[(*place, "time_column")] = f"{what}{shown}"


def _add_key(guess: Guess, names: Names, table: TextTable, columns: Columns) -> None:
    """Add the source of labels and subjects."""
    device = next(iter(guess.dataset["devices"]))
    if names.fields:
        description = "; ".join(f"{{{name}}} is {why}" for name, (why, _) in names.fields.items())
        guess.why["devices", device, "pattern"] = description
    if columns.label is not None:
        guess.dataset["label"] = {"column": table.column_name(columns.label)}
        found = sorted(set(table.texts(columns.label)))
        if "" in found:
            guess.dataset["ignore_labels"] = [""]
            guess.why["ignore_labels",] = "rows without a label; see unlabelled to keep them"
            found.remove("")
        guess.why["label",] = f"in the first rows: {', '.join(found[:4])}{' …' if len(found) > 4 else ''}"
    elif "table" in guess.dataset:
        guess.dataset["label"] = {"path": "action"}
        return
    elif "action" in names.fields:
        guess.dataset["label"] = {"path": "action"}
        guess.why["label",] = names.fields["action"][0]
    else:
        guess.dataset["label"] = {"column": None}
        guess.why["label", "column"] = f"{FILL_IN}: the column of labels, or path: action and {{action}} in the patterns"
    if columns.subject is not None:
        guess.dataset["key_columns"] = {"subject": table.column_name(columns.subject)}
        if not table.names:
            guess.why["key_columns",] = "whole numbers that seldom change; check them"
    elif "subject" not in names.fields:
        guess.dataset["key_columns"] = {"subject": None}
        guess.why["key_columns", "subject"] = f"{FILL_IN}: the column of subjects, or {{subject}} in the patterns"
    if columns.trial is not None:
        guess.dataset.setdefault("key_columns", {})["trial"] = table.column_name(columns.trial)
    elif columns.restarts:
        guess.notes.append(
            f"{device}: time stamps go back within a file, which holds several recordings; set key_columns.trial to the column "
            "that distinguishes them"
        )
