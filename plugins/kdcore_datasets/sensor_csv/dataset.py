"""Dataset `sensor-csv`: your own recordings of inertial sensors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from kdcore import DataError, Dataset, IfSet, Sample, SampleKey, Signal, TargetKind, Unusable
from kdcore_datasets.delimited import Column
from kdcore_datasets.folders import existing_folder
from kdcore_datasets.pattern import PathPattern
from kdcore_datasets.protocols.partition import in_order, listed, natural
from kdcore_datasets.sensor_csv.options import Device, KeyField, Label
from kdcore_datasets.sensor_csv.recording_table import RecordingTable, key_from_row, unused_note
from kdcore_datasets.sensor_csv.recordings import Run, Stretch, fault, gaps, read_signal, runs, stamps, stretches
from kdcore_datasets.sensor_csv.tables import seems_headerless
from kdcore_datasets.targets import KEEP, declared_target, read_numbers_of


@dataclass(frozen=True)
class _Piece:
    """A recording or part of one, with the text of its label and weight."""

    key: SampleKey
    text: str
    sources: dict[str, object]
    weight: str = "1"


class SensorCsv(Dataset):
    """Delimited text files or Parquet files of one or several devices worn together.

    Each kind of signal of each device is a modality, named ``kind-device``, e.g. ``accelerometer-watch``. Files of several
    devices belong to the same recording if the placeholders in their paths match. Their time stamps come from one clock, or
    start together (`clock`).

    If labels or parts of the key come from columns, each recording is cut into samples where one of these changes in the file
    of the first device. The other devices are cut at the same times, and recordings without the first device are skipped. The
    number of the part is appended to the trial: ``01-3`` is the third part of trial ``01``.

    Args:
        root: Folder of the recordings.
        devices: Files and columns of each device, by name.
        label: Source of labels; null for recordings without labels.
        classes: Class names in the order of the labels. If empty, the labels that occur, in natural order, which requires the
            files.
        ignore_labels: Labels whose samples are skipped; for other targets complete texts, such as ``walk;talk``.
        unlabelled: ``bad`` counts a recording without a label, labels or values as bad, ``keep`` keeps it, as
            ``data.labels: partial`` requires.
        key_columns: Parts of the key that are columns of the first device, e.g. ``subject: user``.
        min_duration: Minimum duration of a part in seconds; shorter ones are skipped.
        target: ``classes``: one label per recording. ``labels``: any number of labels, separated by semicolons, such as
            ``walk;talk``, or ``none``; ``walk;?talk`` if it is unknown whether ``talk`` applies, and ``walk;?`` if all other
            labels are unknown. ``values``: numbers to estimate, separated by semicolons, empty or ``?`` if unknown. Labels and
            values require `classes`, their names.
        value_units: Units of values, by name.
        weight: Column of the first device with the weight of a recording, which is cut where the weight changes.
        table: Table with one row per recording, whose columns replace placeholders in the patterns: labels and subjects that
            are in a spreadsheet. A recording without a row is skipped.

    Raises:
        ValueError: If labels or cutting require something that the devices do not have.
    """

    def __init__(
        self,
        *,
        root: Path,
        devices: dict[str, Device],
        label: Label | None = Label(path="action"),  # noqa: B008 - frozen
        classes: tuple[str, ...] = (),
        ignore_labels: tuple[str, ...] = (),
        key_columns: dict[KeyField, Column] | None = None,
        min_duration: float = 0.0,
        unlabelled: Literal["bad", "keep"] = "bad",
        target: Annotated[TargetKind, IfSet()] = "classes",
        value_units: Annotated[dict[str, str] | None, IfSet()] = None,
        weight: Annotated[Column | None, IfSet()] = None,
        table: Annotated[RecordingTable | None, IfSet()] = None,
    ):
        self.target = declared_target("sensor-csv", target, classes, value_units)
        self.weight, self.weighted = weight, weight is not None
        self.table = table
        self.root = root
        self.devices = devices
        self.label = label
        self.ignore_labels = ignore_labels
        self.key_columns = key_columns or {}
        self.min_duration = min_duration
        self.unlabelled = unlabelled
        self._unused: list[str] = []
        self._classes = classes
        self._patterns = {name: PathPattern(device.pattern) for name, device in devices.items()}
        self._kinds = {f"{kind}-{name}": (name, kind) for name, device in devices.items() for kind in device.columns}
        self.modalities = {name: devices[device].modality(kind, name) for name, (device, kind) in self._kinds.items()}
        self.version = hashlib.sha256(f"1 {sorted(devices.items())}".encode()).hexdigest()[:8]
        own = [label.column if label else None, weight]
        self._cut_columns = [*(column for column in own if column is not None), *self.key_columns.values()]
        self._check()

    def _check(self) -> None:
        if not self.devices:
            raise ValueError("sensor-csv: describe at least one device")
        if not self._classes and self.label is None:
            raise ValueError("sensor-csv: recordings without labels need classes")
        if self.label and self.label.path:
            for name, pattern in self._patterns.items():
                if self.label.path not in {*pattern.fields, *(self.table.columns if self.table else ())}:
                    raise ValueError(f"sensor-csv: {name}'s pattern has no {{{self.label.path}}} to take labels from")
        if len({frozenset(pattern.fields) for pattern in self._patterns.values()}) > 1:
            raise ValueError("sensor-csv: all devices' patterns must have the same placeholders")
        if len({device.clock for device in self.devices.values()}) > 1:
            raise ValueError("sensor-csv: all devices must have the same `clock`, shared or start")
        clocks = {(device.pattern, device.rate, device.time_column) for device in self.devices.values()}
        if self._cut_columns and len(clocks) > 1:  # otherwise, all are columns of the same rows
            timeless = [name for name, device in self.devices.items() if device.time_column is None]
            starts = {device.clock for device in self.devices.values()} == {"start"}
            if timeless and not starts:
                raise ValueError(
                    f"sensor-csv: to be cut at the same instants, {listed(timeless)} must have a time_column, "
                    "or all devices `clock: start`, if they started together"
                )

    @cached_property
    def classes(self) -> Sequence[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Class names; read from the files if the recipe does not list them."""
        if self._classes:
            return self._classes
        found = {piece.text for piece in self._labelled([])} - set(self.ignore_labels) - {""}
        return tuple(sorted(found, key=natural))

    def samples(self) -> Sequence[Sample]:
        """Return all recordings or parts, by key."""
        labels = {name: number for number, name in enumerate(self.classes)}
        unusable: list[Unusable] = []
        made = [self._sample(piece, labels, unusable) for piece in self._labelled(unusable)]
        self.unusable = unusable
        found = in_order(sample for sample in made if sample)
        self.notes = [*self._unused, *self._headerless(found), *self._without_overlap(found), *self._gaps(found)]
        return found

    def _headerless(self, samples: Sequence[Sample]) -> Iterator[str]:
        """Return one warning for each device whose first file appears to have no header although `header` is true."""
        for name, device in self.devices.items():
            sources = (source for sample in samples for each, source in sample.sources.items() if self._of(each) == name)
            path = next(map(_path, sources), None)
            columns = [column for group in device.columns.values() for column in group]
            if path and device.header and seems_headerless(path, columns, device.layout):
                yield f"{name}: the first line of {path} looks like data, and is not read; without a header, set header: false"

    def _of(self, modality: str) -> str:
        return self._kinds[modality][0]

    def _without_overlap(self, samples: Sequence[Sample]) -> Iterator[str]:
        """Return one warning for each device that recorded nothing during any part of the first device."""
        if not self._cut_columns or not samples:
            return
        reference = next(iter(self.devices))
        for name, device in self.devices.items():
            if any(self._of(modality) == name for sample in samples for modality in sample.sources):
                continue
            files = next((each for each in self._recordings().values() if {name, reference} <= set(each)), None)
            if files is None:
                yield f"{name}: no recording has files of both {reference} and {name}"
                continue
            spans = [stamps(files[each], self.devices[each]) for each in (reference, name)]
            span, other_span = (f"{np.nanmin(each):.3f} to {np.nanmax(each):.3f} s" for each in spans)
            yield (
                f"{name}: its clock does not overlap that of {reference}: {files[reference].name} covers {span}, "
                f"{files[name].name} covers {other_span} (time_unit of {name}: {device.time_unit}); if all devices started "
                "together, set `clock: start` for each; if a clock is ahead or behind, set its `clock_offset`"
            )

    def _gaps(self, samples: Sequence[Sample]) -> Iterator[str]:
        """Return one sentence for each modality in which missing values are interpolated or dropped."""
        for modality, (name, kind) in self._kinds.items():
            device = self.devices[name]
            if device.missing_values == "error":
                continue
            counts = [gaps(self._stretch(each, modality), device, kind) for each in samples if modality in each.sources]
            filled, dropped = sum(each.filled for each in counts), sum(each.dropped for each in counts)
            recordings = sum(bool(each.filled or each.dropped) for each in counts)
            if filled or dropped:
                yield (
                    f"{modality}: values are missing in {filled + dropped} rows of {recordings} of {len(counts)} samples; "
                    f"{filled} rows were interpolated, {dropped} left out"
                )

    def _sample(self, piece: _Piece, labels: Mapping[str, int], unusable: list[Unusable]) -> Sample | None:
        key, text, sources = piece.key, piece.text, piece.sources
        if self.label is not None:
            key = replace(key, action=text or self.target.action_of(None, self.classes))
        try:
            weight = float(piece.weight)
        except ValueError:
            unusable.append(
                Unusable(f"{self.root}: {key}", "no weight", f"weight {piece.weight!r} is not a number", key.subject)
            )
            return None
        if self.label is None:
            return Sample(key, None, sources, weight=weight)
        if text in self.ignore_labels:
            unusable.append(Unusable(str(key), "ignored label", repr(text), key.subject, fault=False))
            return None
        try:
            answer = self._answer(text, labels)
        except ValueError as error:
            unusable.append(Unusable(f"{self.root}: {key}", "unknown label", str(error), key.subject))
            return None
        if answer is None and self.unlabelled == "bad":
            detail = f"none of the {self.target.kind} of {text!r} is known" if text else "a row has no label"
            unusable.append(Unusable(f"{self.root}: {key}", "no label", f"{detail} ({KEEP})", key.subject))
            return None
        label, numbers = (answer, None) if isinstance(answer, int) else (None, answer)
        action = text if label is not None else self.target.action_of(numbers, self.classes)
        return Sample(replace(key, action=action), label, sources, numbers, weight)

    def _answer(self, text: str, labels: Mapping[str, int]) -> int | tuple[float, ...] | None:
        """Return the class index or the numbers for a text, or None if it is empty.

        Raises:
            ValueError: If the text is not a valid target.
        """
        if not self.target.is_classes:
            return read_numbers_of(text, self.classes, self.target)
        if text and text not in labels:
            raise ValueError(f"label {text!r} is not one of the classes {listed(list(labels))}")
        return labels[text] if text else None

    def _labelled(self, unusable: list[Unusable]) -> Iterator[_Piece]:
        """Return all samples. Broken recordings are added to `unusable`."""
        for key, files in self._described(unusable):
            if self._cut_columns:
                try:
                    yield from list(self._pieces(key, files, unusable))
                except DataError as error:
                    unusable.append(Unusable(str(next(iter(files.values()))), "unreadable", str(error), key.subject))
            else:
                text = getattr(key, self.label.path or "action") if self.label else ""
                yield _Piece(key, text, {name: files[device] for name, (device, _) in self._kinds.items() if device in files})

    def _described(self, unusable: list[Unusable]) -> Iterator[tuple[SampleKey, dict[str, Path]]]:
        """Return key and files of each recording, with the parts of the key that are in the table."""
        if self.table is None:
            yield from self._recordings().items()
            return
        rows, used = self.table.rows(self.root), set()
        for key, files in self._recordings().items():
            try:
                own, name = key_from_row(key, files.values(), self.root, rows)
            except DataError as error:
                path = str(next(iter(files.values())))
                unusable.append(Unusable(path, f"not in {self.table.file}", str(error), key.subject, fault=False))
                continue
            used.add(name)
            yield own, files
        self._unused = unused_note(self.table, (name for name in rows if name not in used))

    def _recordings(self) -> dict[SampleKey, dict[str, Path]]:
        """Return the files of each recording, by key and device."""
        root = existing_folder(self.root)
        found: dict[SampleKey, dict[str, Path]] = {}
        for device, pattern in self._patterns.items():
            for file in pattern.find(root):
                files = found.setdefault(file.key(), {})
                if device in files:
                    raise DataError(f"{file.path}: a second file of {device} of the same recording as {files[device]}")
                files[device] = file.path
        if not found:
            wanted = listed([repr(pattern.text) for pattern in self._patterns.values()])
            raise DataError(f"{root}: holds no file that fits {wanted}")
        return dict(sorted(found.items()))

    def _pieces(self, key: SampleKey, files: Mapping[str, Path], unusable: list[Unusable]) -> Iterator[_Piece]:
        reference, device = next(iter(self.devices.items()))
        if reference not in files:
            what = f"no file of {reference}, whose column holds the label"
            unusable.append(Unusable(str(next(iter(files.values()))), "no first device", what, key.subject, fault=False))
            return
        path = files[reference]
        times = stamps(path, device)
        for number, run in enumerate(runs(path, device, self._cut_columns), start=1):
            own = self._key_of(key, run, number)
            if unfit := self._unfit(path, device, run, times):
                reason, detail, broken = unfit
                unusable.append(Unusable(f"{path}, rows {run.first + 1} to {run.last}", reason, detail, own.subject, broken))
                continue
            cut = stretches(files, self.devices, reference, run)
            sources: dict[str, object] = {name: cut[kind] for name, (kind, _) in self._kinds.items() if kind in cut}
            yield _Piece(own, self._label_of(key, run), sources, self._weight_of(run))

    def _unfit(self, path: Path, device: Device, run: Run, times: np.ndarray) -> tuple[str, str, bool] | None:
        """Return why rows do not form a sample, as a short and a long text, and whether they are broken."""
        if run.last - run.first < 2:
            return "fewer than two rows", f"of {' '.join(run.values)!r}", False
        if wrong := fault(path, device, run):
            return *wrong, True
        duration = float(times[run.last - 1] - times[run.first])
        if duration < self.min_duration:
            return "shorter than min_duration", f"{duration:.3g} s of {' '.join(run.values)!r}", False
        return None

    def _key_of(self, key: SampleKey, run: Run, number: int) -> SampleKey:
        values = run.values[len(run.values) - len(self.key_columns) :]
        key = replace(key, **dict(zip(self.key_columns, values, strict=True)))
        return replace(key, trial=f"{key.trial}-{number}" if key.trial else str(number))

    def _weight_of(self, run: Run) -> str:
        if self.weight is None:
            return "1"
        return run.values[1 if self.label and self.label.column is not None else 0]

    def _label_of(self, key: SampleKey, run: Run) -> str:
        if self.label is None:
            return ""
        return run.values[0] if self.label.column is not None else getattr(key, self.label.path or "action")

    def read(self, sample: Sample, modality: str) -> Signal:
        """Read a signal. Its clock starts with the first device's first row, or with the earliest row of all devices."""
        device, kind = self._kinds[modality]
        return read_signal(self._stretch(sample, modality), self.devices[device], kind)

    def _stretch(self, sample: Sample, modality: str) -> Stretch:
        source = sample.sources[modality]
        return (
            source if isinstance(source, Stretch) else self._whole(sample, Path(str(source)), self.devices[self._of(modality)])
        )

    def _whole(self, sample: Sample, path: Path, device: Device) -> Stretch:
        files = {self._kinds[name][0]: Path(str(source)) for name, source in sample.sources.items()}
        firsts = [stamps(file, self.devices[name])[0] for name, file in files.items()]
        origin = min((float(first) for first in firsts if np.isfinite(first)), default=0.0)
        return Stretch(path, 0, len(stamps(path, device)), origin)


def _path(source: object) -> Path:
    return source.path if isinstance(source, Stretch) else Path(str(source))
