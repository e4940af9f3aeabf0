"""Saved students at work on raw files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from kdcore.contracts.modality import Modality, Signal
from kdcore.deploy.predictor import Predictor
from kdcore.deploy.streaming import Smoothing, smoothed
from kdcore.errors import DataError, KdcoreError
from kdcore.plugin.manager import plugin_manager
from kdcore.plugin.option_schema import make, options_model

TABLES = (".csv", ".txt", ".tsv")


def predict_files(
    student: Predictor,
    files: Sequence[Path],
    dataset: str = "",
    rate: float | None = None,
    top: int = 3,
    window: tuple[float, float] | None = None,
    smoothing: Smoothing = Smoothing(),  # noqa: B008 - frozen
) -> Iterator[str]:
    """A line for every recording, or for every window of it: the likeliest classes with their probabilities.

    Args:
        student: A saved student, or several taken together.
        files: One file a recording; for a student of several modalities, ``modality=file`` for each of one recording.
        dataset: Whose file format they are in; by default the one the student was trained on, or by their ending
            plain arrays (see `read_recording`).
        rate: Samples per second of plain arrays; the modality's by default.
        top: How many classes a line names.
        window: Length and hop in seconds; those that the student was trained on by default, if any.
        smoothing: Over windows.

    Raises:
        DataError: If a file cannot be read or lacks what the student needs.
    """
    window = window or student.window
    for name, signals in _recordings(student, files, dataset, rate):
        try:
            probabilities = student.predict(signals, window)
            spans = student.spans(signals, window)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
        for span, row in zip(spans, smoothed(probabilities, smoothing), strict=True):
            best = np.argsort(-row, kind="stable")[:top]
            shown = "  ".join(f"{student.classes[index]} {row[index]:.3f}" for index in best)
            yield f"{name}{f' {span[0]:.2f}-{span[1]:.2f} s' if span else ''}: {shown}"


def _recordings(
    student: Predictor, files: Sequence[Path], dataset: str, rate: float | None
) -> Iterator[tuple[str, dict[str, Signal]]]:
    if len(student.reads) == 1:
        for path in files:
            [name] = student.reads
            file = Path(str(path).removeprefix(f"{name}="))
            yield str(file), {name: read_recording(student, file, name, dataset, rate)}
        return
    given = dict(str(path).split("=", 1) for path in files if "=" in str(path))
    missing = [name for name in student.modalities if name not in given]
    if missing:
        raise DataError(
            f"this student reads {', '.join(student.modalities)}: give each as modality=file (missing: {', '.join(missing)})"
        )
    signals = {name: read_recording(student, Path(given[name]), name, dataset, rate) for name in student.modalities}
    yield " ".join(given.values()), signals


def read_recording(student: Predictor, path: Path, modality: str = "", dataset: str = "", rate: float | None = None) -> Signal:
    """A raw file as a signal that a student can be asked about.

    Without `dataset`, a file ending in ``.npy``, and with `rate` also a table (``.csv``, ``.txt``, ``.tsv``, with or without a
    line of names), is a plain array: a row per sample, axes and units as the modality has them. All else is read as files of
    the student's own dataset are.

    Args:
        student: Who is to be asked.
        path: The file.
        modality: What it is a recording of; may be left out where the student reads one modality.
        dataset: Whose file format it is in.
        rate: Samples per second of a plain array; the modality's by default.

    Raises:
        DataError: If it cannot be read.
    """
    kind = student.reads[modality or student.modalities[0]]
    if not path.is_file() and not path.is_dir():
        raise DataError(f"{path}: no such file")
    if not dataset and (path.suffix == ".npy" or (path.suffix in TABLES and rate is not None)):
        return _plain_array(path, kind, rate)
    own = student.description["dataset"]
    try:
        return _reader(dataset or own["name"], {} if dataset else own.get("options", {}), path).read_file(path, kind.name)
    except KeyError as error:
        raise DataError(f"{path}: dataset {dataset or own['name']!r} has no {kind.name}") from error
    except KdcoreError as error:
        hint = "; for a plain table say how many samples a second it has (--rate)" if path.suffix in TABLES else ""
        raise DataError(f"{error}{hint}") from error


def _reader(name: str, options: Mapping[str, object], path: Path):
    entry = plugin_manager().registry.get("dataset", name)
    fields = options_model(entry).model_fields
    places = {key: path.parent for key in ("root", "file") if key in fields and fields[key].is_required()}
    try:
        return make(entry, {**options, **places})
    except ValueError as error:
        missing = [key for key, field in fields.items() if field.is_required() and key not in {**options, **places}]
        why = f"its options {', '.join(missing)} are not known" if missing else str(error)
        raise DataError(f"{path}: cannot be read as files of dataset {name!r}: {why}") from error


def _plain_array(path: Path, modality: Modality, rate: float | None) -> Signal:
    try:
        values = np.load(path, allow_pickle=False) if path.suffix == ".npy" else _table(path)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read as a plain array: {error}") from error
    rate = rate or modality.rate
    if not rate:
        raise DataError(f"{path}: say how many samples a second it has (--rate)")
    return Signal(values, rate)


def _table(path: Path) -> np.ndarray:
    with open(path, encoding="utf-8", errors="replace") as file:
        first = file.readline()
    delimiter = next((sign for sign in ",;\t" if sign in first), None)
    try:
        [float(cell) for cell in first.split(delimiter)]
        names = 0
    except ValueError:
        names = 1
    return np.loadtxt(path, delimiter=delimiter, skiprows=names, ndmin=2)
