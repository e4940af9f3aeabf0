"""Conversion of raw files, arrays and data frames to input signals of a saved student."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdcore.contracts.modality import Modality, Signal
from kdcore.contracts.plain_recording import PlainRecording, RecordingForm
from kdcore.contracts.units import same_rate
from kdcore.data.arrays import as_numpy
from kdcore.data.sample_tables import goes_back, instants, is_table
from kdcore.data.signal_checks import likely_unit
from kdcore.errors import DataError, KdcoreError
from kdcore.plugin.manager import plugin_manager
from kdcore.plugin.option_schema import make, options_model
from kdcore.plugin.registry import FROM_PYTHON
from kdcore.recipe.yaml import leaves
from kdcore.user_warnings import warn

if TYPE_CHECKING:
    from kdcore.contracts.dataset import Dataset
    from kdcore.deploy.predictor import Predictor

READER = "the plugin 'datasets', which comes with kdcore and reads plain files and data frames, is not in use"
"""Reason why a recording cannot be read if no plugin implements the hook ``open_recording``."""


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

    The file is read by the student's dataset, or by `dataset`. A ``.npy`` file, or with `rate` a table of numbers that the
    student's dataset cannot read, is a plain recording, which a plugin reads (hook ``open_recording``).

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
    path, name = Path(path), modality or student.modalities[0]
    with _located(path):
        if not path.is_file() and not path.is_dir():
            raise DataError("no such file")
        if rate is not None:
            known_rate(rate, student.reads[name])
        if path.suffix == ".npy" and not dataset:
            form = recording_form(student, name, rate, units, "--rate")
            return _plain_signal(_open(path, decimal), form)
        own: Mapping[str, Any] = student.description.get("dataset") or {"name": ""}
        used, options = (dataset, {}) if dataset else (own["name"], own.get("options", {}))
        try:
            signal = _read_as(used, options, path, name)
        except KdcoreError as error:
            if path.is_dir():
                reason = _without(path, error).removeprefix("is a folder")
                of = f" of dataset {used!r}{f' ({reason})' if reason else ''}" if used else ""
                raise DataError(f"a folder, not a recording{of}; give the files in it") from error
            if dataset:
                raise
            plain = _open_table(path, decimal, rate, own, error)
            return _plain_signal(plain, recording_form(student, name, rate, units))
        warn_of_unit(np.asarray(signal.values), student.reads[name], f"convert them to {student.reads[name].units}")
        return _at_rate(signal, rate, units, decimal)


def _open_table(path: Path, decimal: str, rate: float | None, own: Mapping[str, Any], error: KdcoreError) -> PlainRecording:
    """Open a file that the student's `own` dataset cannot read, because of `error`, as a plain table.

    Raises:
        KdcoreError: `error` itself, if the file is no plain table, or has columns of that dataset.
        DataError: If the file cannot be read, or the rate is missing.
    """
    reason = _without(path, error)
    plain = _open_if_plain(path, decimal, reason)
    options = {each for _, each in leaves(own.get("options", {}))}
    if plain is None or options & set(plain.names):  # it is a file of that dataset, so its error matters
        raise error
    if rate is None:
        tried = f" (read as a file of dataset {own['name']!r}: {reason})" if own["name"] else ""
        raise DataError(f"a plain table requires --rate, its samples per second{tried}") from error
    return plain


def _without(path: Path, error: Exception) -> str:
    """The message of an error without the path of the file."""
    return str(error).removeprefix(f"{path}: ")


def _at_rate(signal: Signal, rate: float | None, units: str, decimal: str) -> Signal:
    """Return the signal, after checking that it is consistent with the given rate, units and decimal mark."""
    if units:
        raise DataError("--units requires a plain array or table; the dataset defines the units of this file")
    if decimal != ".":
        raise DataError("--decimal requires a plain table; the dataset's options define the decimal mark of this file")
    if rate is None:
        return signal
    if signal.times is None and len(signal):
        return replace(signal, rate=rate)
    span = float(signal.clock[-1] - signal.clock[0]) if len(signal) > 1 else 0.0
    mean = (len(signal) - 1) / span if span > 0 else signal.rate
    if not same_rate(mean, rate):
        raise DataError(f"its time stamps give {mean:.4g} samples per second, but --rate is {rate:g}")
    return signal


def _read_as(name: str, options: Mapping[str, object], path: Path, modality: str) -> Signal:
    if not name:
        raise DataError("the dataset of the student is unknown; give the dataset of this file with --dataset")
    if name == FROM_PYTHON:
        raise DataError("the student was trained on arrays, so no dataset that can read files is known")
    try:
        return _dataset(name, options, path).read_file(path, modality)
    except KeyError as error:
        raise DataError(f"dataset {name!r} has no {modality}") from error


def _dataset(name: str, options: Mapping[str, object], path: Path) -> Dataset:
    entry = plugin_manager().registry.get("dataset", name)
    fields = options_model(entry).model_fields
    locations = {key: path.parent for key in ("root", "file") if key in fields and fields[key].is_required()}
    try:
        return make(entry, {**options, **locations})
    except ValueError as error:
        missing = [key for key, field in fields.items() if field.is_required() and key not in {**options, **locations}]
        reason = f"its options {', '.join(missing)} are not known" if missing else str(error)
        raise DataError(f"cannot be read as a file of dataset {name!r}: {reason}") from error


def _open_if_plain(source: Any, decimal: str, reason: str = "") -> PlainRecording | None:
    """Open a plain recording; None if no plugin reads it. `reason` explains why no dataset reads it, for the error message."""
    open_recording = plugin_manager().hook.open_recording
    if not open_recording.get_hookimpls():
        raise DataError(f"{reason}; {READER}" if reason else READER)
    return open_recording(source=source, decimal=decimal)


def _open(source: Any, decimal: str = ".") -> PlainRecording:
    plain = _open_if_plain(source, decimal)
    if plain is None:
        raise DataError("no plugin reads recordings of this kind")
    return plain


def _plain_signal(plain: PlainRecording, form: RecordingForm) -> Signal:
    signal = plain.signal(form)
    warn_of_unit(np.asarray(signal.values), form.modality)
    return signal


@contextmanager
def _located(source: object) -> Iterator[None]:
    """Context that adds the name of a file or stream to errors that do not begin with it."""
    try:
        yield
    except DataError as error:
        if str(error).startswith((f"{source}:", f"{source},")):
            raise
        raise DataError(f"{source}: {error}") from error


def read_stream(lines: Iterable[str], form: RecordingForm, decimal: str = ".") -> Iterator[np.ndarray]:
    """Yield samples (T, …) from the lines of standard input as they arrive.

    Args:
        lines: Rows of numbers, optionally after a header line.
        form: Form of the recording.
        decimal: Decimal mark.

    Raises:
        DataError: If a line is not a row of numbers, or the columns do not match the modality.
    """
    with _located("standard input"):
        yield from _open(lines, decimal).blocks(form)


def as_signal(values: Any, modality: Modality, rate: float | None, channels: int = 0) -> Signal:
    """Convert an array, tensor, data frame, `Signal` or (array, rate) pair to a signal.

    Args:
        values: Recording with the axes of the modality, time first. Columns of a data frame are selected by name.
        modality: Modality of the recording.
        rate: Sampling rate in Hz. Default: the rate of the modality.
        channels: Number of channels, if `modality` does not name them.

    Raises:
        DataError: If the rate is unknown, or `values` has another type.
    """
    if rate is not None:
        known_rate(rate, modality)
    if isinstance(values, tuple):
        if len(values) != 2 or not isinstance(values[1], int | float):
            raise DataError(f"{modality.name}: a tuple is an (array, rate) pair; a batch of recordings is a list")
        values, own = values
        if rate and rate != own:
            raise DataError(f"{modality.name}: the recording has {own:g} samples per second, but rate={rate:g}")
        rate = own
    if isinstance(values, Signal):
        if rate and abs(values.rate - rate) > 1e-6 * rate:
            raise DataError(f"{modality.name}: the signal has {values.rate:g} samples per second, but rate={rate:g}")
        return values
    rate = known_rate(rate, modality)
    if is_table(values):
        plain = _open(_with_seconds(values, modality))
        if not plain.time and goes_back(getattr(values, "index", None)):
            raise DataError(
                f"{modality.name}: the table has no time column, and its index is not sorted; sort the rows by time, then "
                "call reset_index"
            )
        return _plain_signal(plain, RecordingForm(modality, rate, "", channels))
    if not hasattr(values, "__array__"):
        raise DataError(f"{modality.name}: a recording must be a path, an array or a Signal, not {type(values).__name__}")
    array = as_numpy(values)
    warn_of_unit(array, modality)
    return Signal(array, rate)


def _with_seconds(table: Any, modality: Modality) -> Any:
    """Return a data frame with dates and durations converted to seconds."""
    dates = [index for index, kind in enumerate(table.dtypes) if getattr(kind, "kind", "O") in "Mm"]
    table = table.copy() if dates else table
    for index in dates:
        table.isetitem(index, instants(modality.name, table.iloc[:, index], str(table.columns[index])))
    return table


def warn_of_unit(values: np.ndarray, modality: Modality, remedy: str = "") -> None:
    """Warn about accelerations and angular velocities that seem to be in another unit than the one they are read in.

    Args:
        values: (T, channels).
        modality: The modality, with the unit in which they are read.
        remedy: What to do. Default: name the unit, which a plain recording allows.
    """
    if values.ndim != 2 or values.dtype.kind not in "fiu" or not len(values):
        return  # rejected with a reason when compared with the student's input
    size = float(np.median(np.linalg.norm(values.astype(np.float64), axis=1)))
    peak = float(np.abs(values).max())
    if unit := likely_unit(modality, size, peak):
        columns = ", ".join(f"'{axis} [{unit}]'" for axis in "xyz")
        seen = f"values reach {peak:.3g}" if unit == "deg/s" else f"the vectors have a length of about {size:.3g}"
        warn(
            f"{modality.name}: {seen}, as if in {unit}, but are read as {modality.units}; "
            f"if they are in {unit}, {remedy or f'pass --units {unit} or name the columns {columns}'}",
            kind=f"{modality.name} in {unit}",
        )


def recording_form(student: Predictor, name: str, rate: float | None, units: str = "", option: str = "rate=") -> RecordingForm:
    """Return the form in which a student reads recordings of a modality.

    Args:
        student: Student that reads the recording.
        name: Name of the modality.
        rate: Sampling rate in Hz. Default: the rate of the modality.
        units: Unit of values whose source states none. Default: the unit of the modality.
        option: Option that gives the rate, for the error message.

    Raises:
        DataError: If the rate is unknown.
    """
    modality = student.reads[name]
    shape = student.recorded(name).get("shape")
    return RecordingForm(modality, known_rate(rate, modality, option), units, shape[-1] if shape else 0)


def known_rate(rate: float | None, modality: Modality, option: str = "rate=") -> float:
    """Return `rate`, or else the rate of the modality, in Hz.

    Raises:
        DataError: If neither is known, or the rate is not greater than 0.
    """
    chosen = rate if rate is not None else modality.rate
    if chosen is None:
        raise DataError(f"{modality.name} has no default rate: give the samples per second with {option}")
    if not (np.isfinite(chosen) and chosen > 0):
        raise DataError(f"{modality.name}: the rate must be greater than 0 samples per second, not {chosen:g}")
    return float(chosen)


def fitting(student: Predictor, name: str, signal: Signal) -> Signal:
    """Return the signal as the student's input, after checking its axes, channels and rate.

    Raises:
        DataError: If they do not match the student, or the values are not numbers.
    """
    modality, values = student.reads[name], np.asarray(signal.values)
    recorded = student.recorded(name)
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
