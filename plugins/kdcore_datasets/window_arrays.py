"""Datasets `windows` and `uci-har`: recordings that are already cut into windows, many per file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_types import Gt

from kdcore import DataError, Dataset, IfSet, Modality, Sample, SampleKey, Signal, TargetKind, Unusable
from kdcore_datasets.file_formats import require_finite
from kdcore_datasets.folders import existing_folder
from kdcore_datasets.modalities import ACCELEROMETER, FACTORS, GYROSCOPE, ORIENTATION, Unit
from kdcore_datasets.protocols.partition import in_order, listed, natural
from kdcore_datasets.targets import KEEP, declared_target, numbers_of
from kdcore_datasets.window_files import load_rows, located

_STRICT = {"extra": "forbid"}
_KNOWN = {each.name: each for each in (ACCELEROMETER, GYROSCOPE, ORIENTATION)}


@dataclass(frozen=True)
class WindowSet:
    """A set of windows, with one row per window in each file.

    Files are given by their path below the root of the dataset. If a file contains several arrays or columns, the name follows
    after a colon: ``train.npz:X``. Supported formats are ``.npy``; ``.npz``; Parquet; HDF5 (``data.h5:train/X``, with
    ``kdcore[hdf5]``); ``.ts`` of aeon and sktime (``train.ts:series`` and ``train.ts:labels``); and folders saved by Hugging
    Face `datasets` (``train:accelerometer``). Any other file is text with one row of numbers per line, and may be compressed.

    Args:
        signals: Files of each modality. Several files contain one channel each, (windows, time); a single file contains
            (windows, time) or (windows, time, channels).
        labels: File with a label per window; with ``target: labels``, a row of 0 and 1; with ``target: values``, a number or a
            row of numbers.
        subjects: File with a subject per window. Without it, the name of the set is the subject of all windows.
        channels: Channels to select from the file of each modality, starting at 0. Default: all.

    Raises:
        ValueError: If there are no signals, or channels are given for an unknown modality.
    """

    signals: dict[str, tuple[str, ...]]
    labels: str
    subjects: str | None = None
    channels: dict[str, tuple[int, ...]] = field(default_factory=dict)
    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        if not self.signals or not all(self.signals.values()):
            raise ValueError("name at least one file for each modality")
        if unknown := sorted(set(self.channels) - set(self.signals)):
            raise ValueError(f"channels are given for {unknown[0]!r}, which has no files")


@dataclass(frozen=True)
class _Row:
    """A window: a row of one or several files."""

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    row: int


class Windows(Dataset):
    """Windows in ``.npy``, ``.npz``, Parquet, HDF5, ``.ts`` or text files, with files of labels and subjects.

    Windows that were cut from one recording may overlap: split them by subject, or by set.

    Args:
        root: Folder of the files.
        sets: Files by name of the set. The name becomes the session of its windows, so that a protocol can split by set.
        rate: Sampling rate in Hz.
        axes: Order of the axes of an array with several channels. The axes of ``.ts`` files are known.
        classes: Class names in the order of the labels. If empty, the labels that occur, in natural order, which requires the
            files. For other targets, the names of labels or values, which are required.
        names: Class names by label in the files. A label that is not listed is its own name.
        units: Units of modalities, if not m/s², rad/s or rad.
        unlabelled: ``bad`` counts a window without a label as a bad recording, ``keep`` keeps it, as ``data.labels: partial``
            requires.
        target: ``classes``: one label per window. ``labels``: any number of labels. ``values``: numbers to estimate.
        value_units: Units of values, by name.
        weights: File of each set with a weight per window, greater than 0. Without it, all windows have the same weight.

    Raises:
        ValueError: If there are no sets, their modalities differ, only some have weights, or a target has no names.
    """

    def __init__(
        self,
        *,
        root: Path,
        sets: dict[str, WindowSet],
        rate: Annotated[float, Gt(0)],
        axes: Literal["windows-time-channels", "windows-channels-time"] = "windows-time-channels",
        classes: tuple[str, ...] = (),
        names: dict[str, str] | None = None,
        units: dict[str, Unit] | None = None,
        unlabelled: Literal["bad", "keep"] = "bad",
        target: Annotated[TargetKind, IfSet()] = "classes",
        value_units: Annotated[dict[str, str] | None, IfSet()] = None,
        weights: Annotated[dict[str, str] | None, IfSet()] = None,
    ):
        if not sets:
            raise ValueError("windows: describe at least one set")
        kinds = {frozenset(each.signals) for each in sets.values()}
        if len(kinds) > 1:
            raise ValueError("windows: all sets must have the same modalities")
        self.root, self.sets, self.rate, self.axes = root, sets, rate, axes
        self.names, self.units = names or {}, units or {}
        first = next(iter(sets.values()))
        if unknown := sorted(set(self.units) - set(first.signals)):
            raise ValueError(f"windows: units are given for {unknown[0]!r}, which is not a modality of these windows")
        self._classes, self.unlabelled = classes, unlabelled
        self.target = declared_target("windows", target, classes, value_units, names)
        self.weights, self.weighted = weights or {}, bool(weights)
        if weights and set(weights) != set(sets):
            raise ValueError("windows: give weights for every set, or for none")
        self.modalities = {kind: self._modality(kind, first) for kind in first.signals}
        self.version = hashlib.sha256(f"1 {sorted(sets.items())} {rate} {axes} {self.units}".encode()).hexdigest()[:8]

    def _modality(self, kind: str, files: WindowSet) -> Modality:
        known = _KNOWN.get(kind) or Modality(kind, ("time", "channel"), ("channel", "time"), units="")
        count = len(files.channels.get(kind, ())) or (len(files.signals[kind]) if len(files.signals[kind]) > 1 else 0)
        channels = known.channels if count in (0, len(known.channels)) else tuple(map(str, range(count)))
        return known.renamed(kind, rate=self.rate, channels=channels)

    @cached_property
    def classes(self) -> Sequence[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Class names; read from the files if the recipe does not list them."""
        if self._classes:
            return self._classes
        return tuple(sorted({label for name in self.sets for label in self._labels(name) if label}, key=natural))

    def samples(self) -> Sequence[Sample]:
        """Return all windows, by set and subject. The trial of a window is its row."""
        number = {name: index for index, name in enumerate(self.classes)}
        unusable, found = [], []
        for name, files in self.sets.items():
            labels, subjects, weights = self._answers(name), self._subjects(name), self._weights(name)
            sources = {kind: self._files(each) for kind, each in files.signals.items()}
            for (paths, arrays), kind in zip(sources.values(), sources, strict=True):
                for path, array in zip(paths, arrays, strict=True):
                    if len(rows := load_rows(path, array)) != len(labels):
                        raise DataError(
                            f"{path}: has {len(rows)} windows of {kind}, and {files.labels} has {len(labels)} labels"
                        )
            for row, (label, subject) in enumerate(zip(labels, subjects, strict=True)):
                where = {kind: _Row(*each, row) for kind, each in sources.items()}
                weight = 1.0 if weights is None else weights[row]
                if not isinstance(label, str):
                    if label is None and self.unlabelled == "bad":
                        unusable.append(Unusable(f"{name}, window {row}", "no label", KEEP, subject))
                        continue
                    key = SampleKey(subject, self.target.action_of(label, self.classes), str(row), session=name)
                    found.append(Sample(key, None, where, label, weight))
                    continue
                if label not in number and (label or self.unlabelled == "bad"):
                    what = f"label {label!r} is not one of the classes {listed(list(number))}" if label else KEEP
                    unusable.append(Unusable(f"{name}, window {row}", "unknown label" if label else "no label", what, subject))
                    continue
                key = SampleKey(subject, label, str(row), session=name)
                found.append(Sample(key, number.get(label), where, weight=weight))
        self.unusable = unusable
        self.notes = list(dict.fromkeys(note for sample in found[:1] for note in self._odd_channels(sample)))
        return in_order(found)

    def _odd_channels(self, sample: Sample) -> Iterator[str]:
        """Notes on modalities whose windows have other channels than expected.

        Raises:
            DataError: If the axes of an array are in the other order.
        """
        for kind, spec in self.modalities.items():
            source = sample.sources[kind]
            if not isinstance(source, _Row) or len(source.paths) != 1:
                continue
            path, window = source.paths[0], np.asarray(load_rows(source.paths[0], source.names[0])[source.row])
            steps, channels = self._of_channels(window, sample.key.session, kind, path).shape
            other = "windows-time-channels" if self.axes == "windows-channels-time" else "windows-channels-time"
            expected = f"{len(spec.channels)} channels ({', '.join(spec.channels)}) are expected"
            if spec.channels and channels != len(spec.channels) == steps:
                found = f"a window of {kind} has {steps} time steps and {channels} channels"
                raise DataError(f"{path}: {found}, but {expected}: set axes: {other}")
            if spec.channels and channels != len(spec.channels):
                yield f"{kind}: {expected}, but windows have {channels} in {steps} time steps"
            elif window.ndim == 2 and steps < (width := window.size // steps):
                yield f"{kind}: windows have {steps} time steps and {width} channels; if these are swapped, set axes: {other}"

    def read(self, sample: Sample, modality: str) -> Signal:
        """Read a window of a modality."""
        source = sample.sources[modality]
        if not isinstance(source, _Row):
            raise DataError(f"{source}: windows are read from the files of a set, not one by one")
        values = [load_rows(path, name)[source.row] for path, name in zip(source.paths, source.names, strict=True)]
        if len(values) > 1:
            array = np.stack([_one_axis(each, path) for each, path in zip(values, source.paths, strict=True)], axis=1)
        else:
            array = self._of_channels(values[0], sample.key.session, modality, source.paths[0])
        try:
            array = np.asarray(array, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"{source.paths[0]}: window {source.row} of {modality} is not numbers ({error})") from error
        array = require_finite(array, source.paths[0], f"window {source.row} of {modality}")
        factor = FACTORS[self.units[modality]] if modality in self.units else 1.0
        return Signal((array * factor).astype(np.float32), self.rate)

    def _of_channels(self, window: np.ndarray, name: str, modality: str, path: Path) -> np.ndarray:
        if window.ndim not in (1, 2):
            raise DataError(f"{path}: a window has shape {window.shape}, expected (time,) or (time, channels)")
        array = window[:, None] if window.ndim == 1 else window
        if window.ndim == 2 and self.axes == "windows-channels-time" and path.suffix != ".ts":
            array = array.T
        chosen = self.sets[name].channels.get(modality)
        if chosen and max(chosen) >= array.shape[1]:
            raise DataError(f"{path}: has {array.shape[1]} channels, none numbered {max(chosen)}")
        return array[:, list(chosen)] if chosen else array

    def _files(self, texts: Sequence[str]) -> tuple[tuple[Path, ...], tuple[str, ...]]:
        """Yield paths, and arrays in them."""
        root = existing_folder(self.root)
        pairs = [located(root, text) for text in texts]
        return tuple(path for path, _ in pairs), tuple(name for _, name in pairs)

    def _answers(self, name: str) -> Sequence[str | tuple[float, ...] | None]:
        """Return the label of each window, or its numbers; None for a window without."""
        if self.target.is_classes:
            return self._labels(name)
        (path,), (array,) = self._files([self.sets[name].labels])
        values = np.asarray(load_rows(path, array))
        rows = values[:, None] if values.ndim == 1 else values
        try:
            rows = rows.astype(np.float64)
        except ValueError as error:
            raise DataError(f"{path}: holds no numbers ({error})") from error
        if rows.ndim != 2 or rows.shape[1] != len(self.classes):
            raise DataError(
                f"{path}: expected {len(self.classes)} numbers for each window, not an array of shape {values.shape}"
            )
        return numbers_of(rows)

    def _weights(self, name: str) -> list[float] | None:
        source = self.weights.get(name)
        if source is None:
            return None
        (path,), (array,) = self._files([source])
        values, count = np.asarray(load_rows(path, array)).reshape(-1), len(self._answers(name))
        if len(values) != count or values.dtype.kind not in "fiu":
            raise DataError(f"{path}: expected {count} numbers, one weight for each window, not {values.dtype} {values.shape}")
        return values.astype(np.float64).tolist()

    def _labels(self, name: str) -> list[str]:
        return [self.names.get(text, text) for text in self._texts(self.sets[name].labels)]

    def _subjects(self, name: str) -> list[str]:
        files = self.sets[name]
        labels = len(self._answers(name))
        if files.subjects is None:
            return [name] * labels
        found = self._texts(files.subjects)
        if len(found) != labels:
            raise DataError(f"{files.subjects} has {len(found)} subjects, and {files.labels} has {labels} labels")
        return found

    def _texts(self, source: str) -> list[str]:
        (path,), (name,) = self._files([source])
        rows = load_rows(path, name)
        if rows.ndim > 2:
            raise DataError(f"{path}: expected one value for each window, not an array of shape {rows.shape}")
        values = np.asarray(rows)
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        if values.ndim != 1 or (len(values) and isinstance(values[0], np.ndarray)):
            raise DataError(f"{path}: expected one value for each window, not an array of shape {values.shape}")
        return [_as_text(each) for each in values.tolist()]


class UciHar(Windows):
    """UCI-HAR: a phone at the waist, 30 subjects, six activities, windows of 2.56 s at 50 Hz with an overlap of 50 %.

    D. Anguita et al., "A Public Domain Dataset for Human Activity Recognition using Smartphones", ESANN 2013,
    https://doi.org/10.24432/C54S4K. Modalities are ``accelerometer`` (with gravity), ``gyroscope`` and ``body-acceleration``
    (without gravity). The published split is by subject. Its parts are the sessions ``train`` and ``test``.

    Args:
        root: Folder ``UCI HAR Dataset``, which contains ``train`` and ``test``.
    """

    def __init__(self, *, root: Path):
        kinds = {"accelerometer": "total_acc", "gyroscope": "body_gyro", "body-acceleration": "body_acc"}
        sets = {
            part: WindowSet(
                {
                    kind: tuple(f"{part}/Inertial Signals/{stem}_{axis}_{part}.txt" for axis in "xyz")
                    for kind, stem in kinds.items()
                },
                f"{part}/y_{part}.txt",
                f"{part}/subject_{part}.txt",
            )
            for part in ("train", "test")
        }
        classes = ("walking", "walking upstairs", "walking downstairs", "sitting", "standing", "laying")
        names = {str(number): name for number, name in enumerate(classes, start=1)}
        units: dict[str, Unit] = {"accelerometer": "g", "body-acceleration": "g"}
        super().__init__(root=root, sets=sets, rate=50.0, classes=classes, names=names, units=units)


def _as_text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, float):
        return "" if np.isnan(value) else str(int(value)) if value.is_integer() else str(value)
    return "" if value is None else str(value)


def _one_axis(window: np.ndarray, path: Path) -> np.ndarray:
    if window.ndim != 1:
        raise DataError(f"{path}: a window has shape {window.shape}, expected (time,), one file for each channel")
    return window
