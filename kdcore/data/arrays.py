"""Datasets of arrays in memory: NumPy arrays, tensors, lists of recordings, and pandas data frames."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

import numpy as np

from kdcore.contracts.dataset import Dataset, Sample, SampleKey, wrong_weight
from kdcore.contracts.modality import Modality, Signal
from kdcore.contracts.units import conversion, misread_time, rounded_rate, same_rate
from kdcore.data.array_targets import ArrayTargets, as_text
from kdcore.data.sample_tables import is_table, one_for_each, plain_values, recordings_of_table, values_of_table
from kdcore.errors import DataError
from kdcore.plugin.manager import plugin_manager
from kdcore.suggestions import did_you_mean, or_meant

_KEPT = (np.uint8, np.uint16)
"""Integer types of images, which stay as they are; others become float32."""

_SPEC = tuple(field.name for field in fields(Modality) if field.name != "name")
_CONDITIONS = ("view", "scene", "session")


class ArrayDataset(Dataset):
    """A dataset of arrays in memory, for example for `kdcore.run`.

    The recordings of a modality are one of:

    - an array or tensor (samples, time, …);
    - a list of arrays, tensors or `kdcore.Signal`, which may differ in length; None for a sample without the modality;
    - a data frame with a row per time step: a column `sample` with the sample's name, optionally a column ``time`` (seconds,
      dates or durations), and one column per channel. The rows of a sample must be ordered by time.

    Use a pair ``(arrays, rate)`` to give the sampling rate in Hz. Arrays of several modalities are joined by position, data
    frames by the names of their samples.

    A registered modality, such as ``accelerometer``, defines axes, unit and channels (see ``kdcore list modalities``).
    Recordings of any other modality have the axes ``time`` and ``channel``, unless `modalities` says otherwise. A missing
    ``person`` axis of size 1 is added.

    Args:
        signals: Modality → its recordings.
        labels: One per sample: strings or integers; None, NaN or -1 for an unlabelled sample. With data frames also a series,
            frame or mapping by sample, or the name of a column; a list must be in the order of the samples in the data frame.
            None if no sample is labelled. For several labels per sample, an array (samples, labels) of 0 and 1 with the names
            `classes`, or a list of lists of names; None, or a row of NaN, for an unlabelled sample.
        subjects: Subject of each sample, in the same forms as `labels`; protocols split by it. None for a single subject.
        trials: Trial of each sample, to distinguish recordings of one subject and class; numbered by default.
        classes: Class names in order; integer labels are indices into it. By default, the sorted labels that occur.
        modalities: Modality → a `kdcore.Modality`, or a mapping of differences from the registered one: ``units``,
            ``channels``, ``placement``, ``skeleton``, ``axes``, ``layout`` …, and ``like``, the registered modality to start
            from. Values in other ``units`` than the registered modality's are converted.
        values: Regression targets instead of labels: name → one number per sample, in the same forms as `labels`; NaN if
            unknown. An array (samples,) or (samples, values) takes its names from `classes`.
        units: Value → its unit.
        weights: Sample weights greater than 0, one per sample, for terms that read labels.
        keys: ``view``, ``scene`` or ``session`` → one value per sample, for protocols that split by them.
        sample: Column of data frames with the sample's name.

    Raises:
        DataError: If lengths, shapes, labels or rates do not match; names the modality and the sample.

    Example:
        >>> import numpy as np, kdcore
        >>> wrist, body = np.random.rand(6, 100, 3), np.random.rand(6, 60, 20, 3)
        >>> data = kdcore.ArrayDataset(
        ...     signals={"accelerometer": (wrist, 50.0), "skeleton": (body, 30.0)},
        ...     labels=["walk", "sit", "walk", "sit", "walk", "sit"],
        ...     subjects=[1, 1, 2, 2, 3, 3],
        ... )
        >>> data
        ArrayDataset(6 samples, 2 classes, 3 subjects; accelerometer at 50 Hz, skeleton at 30 Hz)
    """

    def __init__(
        self,
        signals: Mapping[str, Any],
        labels: Any = None,
        subjects: Any = None,
        trials: Any = None,
        *,
        classes: Sequence[str] | None = None,
        modalities: Mapping[str, Modality | Mapping[str, Any]] | None = None,
        values: Any = None,
        units: Mapping[str, str] | None = None,
        weights: Any = None,
        keys: Mapping[str, Any] | None = None,
        sample: str = "sample",
    ):
        if not isinstance(signals, Mapping) or not signals:
            raise DataError("signals maps each modality to its recordings, e.g. signals={'accelerometer': (array, 50.0)}")
        for name in set(modalities or ()) - set(signals):
            raise DataError(f"modalities describes {name!r}, for which there are no signals{or_meant(name, signals)}")
        targets = ArrayTargets(labels, values, units, classes)
        given = {"subjects": subjects, "trials": trials, "weights": weights, **targets.given, **(keys or {})}
        per_sample = _PerSample(signals, sample, given)
        count = _positions(signals)
        recorded: dict[str, dict[Hashable, Signal]] = {}
        specs: dict[str, Modality] = {}
        notes: list[str] = []
        for name, arrays in signals.items():
            recordings = _Recordings(name, arrays, *_spec(name, (modalities or {}).get(name)), per_sample.columns, sample)
            recorded[name], specs[name] = recordings.by_sample, recordings.spec
            if recordings.unit:
                notes.append(f"{name}: sampled at an implausible rate{recordings.unit}; times are in seconds")
        self.modalities, self.notes = specs, notes
        ids = list(dict.fromkeys([*range(count), *(each for by_sample in recorded.values() for each in by_sample)]))
        self.classes, answers = targets.read({name: per_sample.of(name, ids) for name in targets.given}, len(ids))
        self.target, self.weighted = targets.target, weights is not None
        self._samples = self._joined(ids, recorded, per_sample, answers, [*(keys or ())])

    def _joined(
        self,
        ids: Sequence[Hashable],
        recorded: Mapping[str, Mapping[Hashable, Signal]],
        per_sample: _PerSample,
        answers: Sequence[Any],
        conditions: Sequence[str],
    ) -> list[Sample]:
        """Join the recordings of each sample. `answers` are class indices, or the numbers of other targets."""
        for name in set(conditions) - set(_CONDITIONS):
            raise DataError(f"keys: there is no {name!r} ({did_you_mean(name, _CONDITIONS)})")
        subjects, trials, weights = (per_sample.of(name, ids) for name in ("subjects", "trials", "weights"))
        others = {name: per_sample.of(name, ids) for name in conditions}
        counts: Counter[tuple[str, ...]] = Counter()
        samples: dict[SampleKey, Sample] = {}
        for row, each in enumerate(ids):
            answer, weight = answers[row], 1.0 if weights is None else _weight(weights[row], each)
            action = self.target.action_of(answer, self.classes)
            subject = "1" if subjects is None else _text(subjects[row], "subjects", each)
            condition = {name: _text(values[row], name, each) for name, values in others.items() if values is not None}
            counts[subject, action, *condition.values()] += 1
            trial = str(counts[subject, action, *condition.values()]) if trials is None else _text(trials[row], "trials", each)
            key = SampleKey(subject, action, trial, **condition)  # type: ignore[arg-type]
            if key in samples:
                raise DataError(f"two samples are {key}: give each its own trial, or omit trials")
            sources = {name: signals[each] for name, signals in recorded.items() if each in signals}
            label, numbers = (answer, None) if self.target.is_classes else (None, answer)
            samples[key] = Sample(key, label, sources, numbers, weight)
        return list(samples.values())

    def samples(self) -> Sequence[Sample]:
        """Every sample, in the order given."""
        return self._samples

    def read(self, sample: Sample, modality: str) -> Signal:
        """The recording of a sample."""
        signal = sample.sources[modality]
        assert isinstance(signal, Signal)
        return signal

    def __len__(self) -> int:
        return len(self._samples)

    def __repr__(self) -> str:
        subjects = len({sample.key.subject for sample in self._samples})
        signals = ", ".join(
            name if spec.rate is None else f"{name} at {spec.rate:g} Hz" for name, spec in self.modalities.items()
        )
        names = self.target.kind if len(self.classes) != 1 or self.target.is_classes else self.target.kind.removesuffix("s")
        people = f"{subjects} subject{'s' if subjects > 1 else ''}"
        return f"ArrayDataset({len(self)} samples, {len(self.classes)} {names}, {people}; {signals})"


class _PerSample:
    """Labels, subjects and other values of each sample, given by position, by sample, or as the name of a column."""

    def __init__(self, signals: Mapping[str, Any], sample: str, given: Mapping[str, Any]):
        self.given, self.sample = dict(given), sample
        self.tables = [table for each in signals.values() if is_table(table := _unpaired(each)[0])]
        self.columns = {value for value in given.values() if isinstance(value, str)}
        if self.columns and not self.tables:
            name = next(key for key, value in given.items() if isinstance(value, str))
            raise DataError(f"{name}={given[name]!r} names a column, but no signals are a table: give one value per sample")

    def of(self, name: str, ids: Sequence[Hashable]) -> list[Any] | None:
        """Return one value for each of `ids`; None if none are given."""
        given: Any = self.given[name]
        if given is None:
            return None
        if isinstance(given, str):
            given = values_of_table(self.tables, self.sample, given)
        if hasattr(given, "index") and hasattr(given, "to_numpy") and self.tables:  # a series, or a frame with a row per sample
            rows = plain_values(given) if given.ndim == 1 else given.to_numpy().tolist()
            given = one_for_each(zip(given.index, rows, strict=True), name)
        if isinstance(given, Mapping):
            missing = [each for each in ids if each not in given]
            if missing:
                raise DataError(f"{name} has no value for the sample {missing[0]!r} ({len(missing)} of {len(ids)} are missing)")
            return [given[each] for each in ids]
        if hasattr(given, "notna") and given.ndim == 1:
            given = plain_values(given)
        values = as_numpy(given).tolist() if hasattr(given, "__array__") else list(given)
        if len(values) != len(ids):
            raise DataError(f"{name} has {len(values)} values for {len(ids)} samples")
        if self.tables and not _ascending(ids):
            raise DataError(
                f"{name}: a list is ambiguous, because the samples of the table are not in the order of their names (it begins "
                f"with {ids[0]!r}); give a series or mapping by sample, or the name of a column"
            )
        return values


class _Recordings:
    """The recordings of one modality, by sample.

    Args:
        name: Name of the modality.
        given: Recordings, as `ArrayDataset` takes them.
        spec: Specification of the modality.
        factor: Factor from the unit of the recordings to that of `spec`.
        columns: Columns of data frames that hold labels and other values of samples.
        sample: Column of data frames with the sample's name.
    """

    def __init__(self, name: str, given: Any, spec: Modality, factor: float, columns: set[str], sample: str):
        self.name, self.spec, self.factor = name, spec, factor
        given, rate = _unpaired(given)
        if rate is not None and not (np.isfinite(rate) and rate > 0):
            raise DataError(f"{name}: the rate must be greater than 0 samples per second, not {rate:g}")
        self.rate = float(rate) if rate is not None else spec.rate
        self.unit = ""
        if is_table(given):
            rows, channels = recordings_of_table(name, given, spec, sample, columns)
            if not spec.channels and "joint" not in spec.axes:
                self.spec = replace(self.spec, channels=channels)
            self.by_sample: dict[Hashable, Signal] = {
                each: self._signal(each, values, times) for each, (values, times) in rows.items()
            }
        else:
            self.by_sample = {
                number: self._signal(number, each) for number, each in enumerate(self._listed(given)) if each is not None
            }
        self._complete_spec()

    def _listed(self, given: Any) -> Iterable[Any]:
        if isinstance(given, list) or (isinstance(given, np.ndarray) and given.dtype == object):
            return given
        if not hasattr(given, "__array__") and not hasattr(given, "detach"):
            kind = type(given).__name__
            raise DataError(
                f"{self.name}: recordings are an array (samples, time, …), a list of arrays, or a table, not a {kind}"
            )
        return as_numpy(given)

    def _signal(self, sample: Hashable, given: Any, times: np.ndarray | None = None) -> Signal:
        where = f"{self.name}, sample {sample!r}"
        if isinstance(given, Signal):
            return given.with_values(self._values(given.values, where))
        if isinstance(given, str):
            raise DataError(f"{where}: a recording cannot be text; read files with a registered dataset, or load them first")
        values = self._values(as_numpy(given), where)
        rate = self.rate
        if times is not None and len(times) > 1:
            steps = np.diff(times)
            if steps.min() <= 0:
                raise DataError(f"{where}: its times do not increase at row {int(steps.argmin()) + 1}")
            measured = 1 / float(np.median(steps))
            if rate is not None and not same_rate(measured, rate):
                raise DataError(f"{where}: its times give {measured:.4g} samples per second, but the rate is {rate:g}")
            rate = rate or rounded_rate(measured, float(np.spacing(np.abs(times).max())))
            if self.rate is None:
                self.unit = self.unit or misread_time(measured)
            steady = np.ptp(steps) <= 0.01 * steps.mean()
            return Signal(values, rate, float(times[0]), None if steady else np.asarray(times, dtype=np.float64))
        if rate is None:
            example = f"signals={{{self.name!r}: (arrays, 50.0)}}"
            raise DataError(f"{self.name}: the sampling rate is missing; give it with the arrays: {example}")
        return Signal(values, rate)

    def _values(self, values: np.ndarray, where: str) -> np.ndarray:
        axes = self.spec.axes
        if values.dtype.kind not in "fiub":
            raise DataError(f"{where}: a recording must hold numbers, not {values.dtype}")
        if values.ndim == 1 and axes == ("time", "channel"):
            values = values[:, None]
        if values.ndim == len(axes) - 1 and axes[-1] == "person":
            values = values[..., None]
        if values.ndim != len(axes):
            raise DataError(f"{where}: a recording has the axes ({', '.join(axes)}), but this one has the shape {values.shape}")
        channels = values.shape[axes.index("channel")] if "channel" in axes else 0
        if self.spec.channels and channels != len(self.spec.channels):
            named = ", ".join(self.spec.channels)
            raise DataError(f"{where}: {len(self.spec.channels)} channels ({named}) are expected, but there are {channels}")
        if values.dtype.kind in "iub" and values.dtype not in _KEPT:
            values = values.astype(np.float32)
        return values if self.factor == 1 else (values * self.factor).astype(np.float32)

    def _complete_spec(self) -> None:
        """Refuse recordings with different channels, joints or persons, and add their common rate and persons to the spec."""
        if not self.by_sample:
            raise DataError(f"{self.name}: there is no recording")
        first, shape = next((sample, signal.values.shape) for sample, signal in self.by_sample.items())
        fixed = [index for index, axis in enumerate(self.spec.axes) if axis in ("channel", "joint", "person")]
        for sample, signal in self.by_sample.items():
            if any(signal.values.shape[index] != shape[index] for index in fixed):
                raise DataError(
                    f"{self.name}: samples {first!r} and {sample!r} differ in shape, {shape} and {signal.values.shape}; "
                    "only the time may differ"
                )
        rates = {signal.rate for signal in self.by_sample.values()}
        persons = shape[-1] if self.spec.axes[-1] == "person" else None
        self.spec = replace(self.spec, rate=rates.pop() if len(rates) == 1 else None, persons=persons or self.spec.persons)


def _spec(name: str, given: Modality | Mapping[str, Any] | None) -> tuple[Modality, float]:
    """Return the specification of a modality, and the factor from the given unit to its unit."""
    if isinstance(given, Modality):
        return replace(given, name=name), 1.0
    given = dict(given or {})
    like = given.pop("like", name)
    registry = plugin_manager().registry
    claims = registry.claims("modality", like)
    if not claims and like != name:
        known = sorted({entry.name for entry in registry.entries("modality")})
        raise DataError(f"modalities: {name!r} is like {like!r}, which is not registered ({did_you_mean(like, known)})")
    for key in set(given) - set(_SPEC):
        raise DataError(f"modalities: {name!r} has no property {key!r} ({did_you_mean(key, [*_SPEC, 'like'])})")
    properties: dict[str, Any] = {key: tuple(each) if isinstance(each, list) else each for key, each in given.items()}
    base = replace(claims[0].load(), name=name) if claims else None
    factor = 1.0
    if base and base.units and properties.get("units", base.units) != base.units:
        try:
            factor = conversion(properties.pop("units"), base.units)
        except ValueError as error:
            raise DataError(f"modalities: {name!r}: {error}") from error
    axes = properties.get("axes", base.axes if base else ("time", "channel"))
    usual = ("channel", "time") if axes == ("time", "channel") else tuple(axes)
    layout = properties.get("layout", base.layout if base and base.axes == axes else usual)
    try:
        return replace(base or Modality(name, axes, layout, ""), **{**properties, "axes": axes, "layout": layout}), factor
    except (ValueError, TypeError) as error:
        raise DataError(f"modalities: {error}") from error


def _positions(signals: Mapping[str, Any]) -> int:
    """The number of samples of arrays and lists, which are joined by position; 0 if all are tables.

    Raises:
        DataError: If they have different numbers.
    """
    counts = {}
    for name, given in signals.items():
        recordings, _ = _unpaired(given)
        if not is_table(recordings) and hasattr(recordings, "__len__"):
            counts[name] = len(recordings)
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataError(f"modalities have different numbers of samples ({listed}); put None where a sample lacks one")
    return max(counts.values(), default=0)


def _ascending(ids: Sequence[Hashable]) -> bool:
    """True if names of samples are in order, as text or by the numbers in them."""
    with suppress(TypeError):
        if list(ids) == sorted(ids):  # type: ignore[type-var]
            return True
    natural = [[int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", str(each))] for each in ids]
    return natural == sorted(natural)


def _unpaired(given: Any) -> tuple[Any, float | None]:
    """Recordings and their rate, which an ``(arrays, rate)`` pair has."""
    if not isinstance(given, tuple):
        return given, None
    if len(given) == 2 and isinstance(given[1], int | float | np.number) and not isinstance(given[0], int | float):
        return given[0], float(given[1])
    raise DataError("a tuple is an (arrays, rate) pair; give several recordings as a list")


def as_numpy(values: Any) -> np.ndarray:
    """Convert an array, a tensor on any device, or any other array-like object to an array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if str(values.dtype) == "torch.bfloat16" else values
    return np.asarray(values)


def _text(value: Any, what: str, sample: Hashable) -> str:
    """A subject or trial as text: ``1`` for the number 1.0, which pandas makes of whole numbers beside missing ones."""
    if value is None or value != value:
        raise DataError(f"{what}: the sample {sample!r} has none")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else as_text(value)


def _weight(value: Any, sample: Hashable) -> float:
    try:
        weight = float(value)
    except (TypeError, ValueError):
        raise DataError(f"weights: {value!r} of the sample {sample!r} is not a number") from None
    if wrong := wrong_weight(weight):
        raise DataError(f"weights: sample {sample!r}: {wrong}")
    return weight
