"""Reading of raw files as input signals of a saved student."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdcore.contracts.modality import Modality, Signal
from kdcore.contracts.units import same_rate
from kdcore.deploy.plain_recordings import SUFFIXES, known_rate, plain_array
from kdcore.deploy.plain_tables import PARQUET, header_of, parquet_names
from kdcore.errors import DataError, KdcoreError
from kdcore.plugin.manager import plugin_manager
from kdcore.plugin.option_schema import make, options_model
from kdcore.plugin.registry import FROM_PYTHON

if TYPE_CHECKING:
    from kdcore.contracts.dataset import Dataset
    from kdcore.deploy.predictor import Predictor


def read_recording(
    student: Predictor,
    path: str | Path,
    modality: str = "",
    dataset: str = "",
    rate: float | None = None,
    units: str = "",
    decimal: str = ".",
) -> Signal:
    """Read a raw file as a signal for a student.

    A ``.npy`` file is read as a plain array. Other files are read by the student's dataset, or by `dataset`. A table of numbers
    (``.csv``, ``.txt``, ``.tsv``, ``.parquet``) that the student's dataset cannot read is a plain table if `rate` is given: its
    columns are selected by name (see `kdcore.deploy.plain_recordings`).

    Args:
        student: Student that the signal is for.
        path: File, or a folder if the dataset stores a recording in one.
        modality: Modality of the recording; optional for a student of one modality.
        dataset: Name of the dataset whose file format to use. Default: the student's dataset.
        rate: Sampling rate of a plain array or table in Hz. Default: the rate of the modality.
        units: Unit of the values of a plain array or table. Default: the unit of the modality.
        decimal: Decimal mark of a text table: ``.`` or ``,``.

    Raises:
        DataError: If the file cannot be read, or does not match the student's input.
    """
    path = Path(path)
    kind = student.reads[modality or student.modalities[0]]
    if not path.is_file() and not path.is_dir():
        raise DataError(f"{path}: no such file")
    if rate is not None:
        _known_rate(path, rate, kind)
    recorded = student.description.get("recorded", {}).get(kind.name, {}).get("shape") or [0, 0]
    if not dataset and path.suffix == ".npy":
        return plain_array(path, kind, _known_rate(path, rate, kind), units, recorded[-1], decimal)
    own: Mapping[str, Any] = student.description.get("dataset") or {"name": ""}
    table = path.suffix in SUFFIXES
    try:
        options = {} if dataset else own.get("options", {})
        signal = _read_as(dataset or own["name"], options, path, kind.name)
    except KdcoreError as error:
        name, reason = dataset or own["name"], str(error).removeprefix(f"{path}: ")
        if path.is_dir():
            of = f" of dataset {name!r} ({reason})" if name else ""
            raise DataError(f"{path}: a folder, not a recording{of}; give the files in it") from error
        if not table or dataset:
            raise
        if rate is None:
            tried = f" (read as a file of dataset {name!r}: {reason})" if name else ""
            raise DataError(f"{path}: a plain table requires --rate, its samples per second{tried}") from error
        if _names_of(path) & set(_texts(own.get("options", {}))):  # it is a file of that dataset, so its error matters
            raise
        return plain_array(path, kind, rate, units, recorded[-1], decimal)
    return _at_rate(signal, rate, units, decimal, path)


def _known_rate(path: Path, rate: float | None, kind: Modality) -> float:
    try:
        return known_rate(rate, kind, "--rate")
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _at_rate(signal: Signal, rate: float | None, units: str, decimal: str, path: Path) -> Signal:
    """Return the signal, after checking that it is consistent with the given rate, units and decimal mark."""
    if units:
        raise DataError(f"{path}: --units requires a plain array or table; the dataset defines the units of this file")
    if decimal != ".":
        raise DataError(f"{path}: --decimal requires a plain table; the dataset's options define the decimal mark of this file")
    if rate is None:
        return signal
    if signal.times is None and len(signal):
        return replace(signal, rate=rate)
    span = float(signal.clock[-1] - signal.clock[0]) if len(signal) > 1 else 0.0
    mean = (len(signal) - 1) / span if span > 0 else signal.rate
    if not same_rate(mean, rate):
        raise DataError(f"{path}: its time stamps give {mean:.4g} samples per second, but --rate is {rate:g}")
    return signal


def _read_as(name: str, options: Mapping[str, object], path: Path, modality: str) -> Signal:
    if not name:
        raise DataError(f"{path}: the dataset of the student is unknown; give the dataset of this file with --dataset")
    if name == FROM_PYTHON:
        raise DataError(f"{path}: the student was trained on arrays, so no dataset that can read files is known")
    try:
        return _dataset(name, options, path).read_file(path, modality)
    except KeyError as error:
        raise DataError(f"{path}: dataset {name!r} has no {modality}") from error


def _dataset(name: str, options: Mapping[str, object], path: Path) -> Dataset:
    entry = plugin_manager().registry.get("dataset", name)
    fields = options_model(entry).model_fields
    locations = {key: path.parent for key in ("root", "file") if key in fields and fields[key].is_required()}
    try:
        return make(entry, {**options, **locations})
    except ValueError as error:
        missing = [key for key, field in fields.items() if field.is_required() and key not in {**options, **locations}]
        reason = f"its options {', '.join(missing)} are not known" if missing else str(error)
        raise DataError(f"{path}: cannot be read as a file of dataset {name!r}: {reason}") from error


def _names_of(path: Path) -> set[str]:
    try:
        if path.suffix == PARQUET:
            return set(parquet_names(path))
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            return set(header_of(file.readline())[1])
    except (OSError, DataError):
        return set()


def _texts(options: Any) -> Iterator[str]:
    """Yield all strings in a dataset's options, which include column names."""
    if isinstance(options, str):
        yield options
    elif isinstance(options, Mapping):
        for each in options.values():
            yield from _texts(each)
    elif isinstance(options, list | tuple):
        for each in options:
            yield from _texts(each)


def fitting(student: Predictor, name: str, signal: Signal) -> Signal:
    """Return the signal as the student's input, after checking its axes, channels and rate.

    Raises:
        DataError: If they do not match the student, or the values are not numbers.
    """
    modality, values = student.reads[name], np.asarray(signal.values)
    recorded = student.description.get("recorded", {}).get(name, {})
    shape = recorded.get("shape") or [len(modality.channels) if axis == "channel" else 0 for axis in modality.axes]
    fixed = [size if axis in ("channel", "joint") else 0 for axis, size in zip(modality.axes, shape, strict=True)]
    if values.ndim != len(shape) or any(size and size != actual for size, actual in zip(fixed, values.shape, strict=True)):
        expected = ", ".join(f"{axis} {size}" if size else axis for axis, size in zip(modality.axes, fixed, strict=True))
        raise DataError(f"{name}: the student reads ({expected}), the recording has shape {values.shape}")
    if values.dtype.kind not in "fiub":
        raise DataError(f"{name}: the recording must contain numbers, not {values.dtype}")
    known_rate(signal.rate, modality)
    rate = student.rate_read(name)
    if rate and not same_rate(signal.rate, rate):
        raise DataError(
            f"{name}: the student reads {rate:g} samples per second and does not resample, but the recording has "
            f"{signal.rate:.4g}; resample it first, or train with the transform resample"
        )
    as_float = values.dtype.kind in "iub" and recorded.get("dtype", "").startswith("float")
    return signal.with_values(values.astype(np.float32)) if as_float else signal
