"""Checks of datasets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from kdcore.contracts.dataset import Dataset, Sample
from kdcore.contracts.modality import Modality, Signal
from kdcore.data.fingerprint import Hashes, fingerprint
from kdcore.data.targets import check_targets
from kdcore.errors import DataError
from kdcore.plugin.option_schema import options_model
from kdcore.testing.case import ConformanceError, NotApplicable, require, skip_unless
from kdcore.testing.checks import Subject, check

READ = 3


def found_samples(subject: Subject) -> tuple[Dataset, Sequence[Sample]]:
    """Return the dataset and its samples.

    Raises:
        NotApplicable: If there are none, which the check `finds_samples` reports.
    """
    dataset = subject.made()
    reason = "it finds no samples: see the check 'finds_samples'"
    try:
        samples = dataset.samples()
    except Exception as error:
        raise NotApplicable(reason) from error
    skip_unless(samples, reason)
    return dataset, samples


def some(subject: Subject) -> tuple[Dataset, list[Sample]]:
    """Return the dataset and a few evenly spaced samples; the case may set their number."""
    dataset, samples = found_samples(subject)
    places = np.linspace(0, len(samples) - 1, min(len(samples), subject.case.inputs or READ)).round().astype(int)
    return dataset, [samples[place] for place in sorted(set(places.tolist()))]


def signals(subject: Subject) -> Iterator[tuple[Sample, str, Signal]]:
    """Yield the signals of some samples with their modality.

    Raises:
        NotApplicable: If one cannot be read, which the check `reads` reports.
    """
    dataset, samples = some(subject)
    for sample in samples:
        for name in sample.sources:
            try:
                yield sample, name, dataset.read(sample, name)
            except Exception as error:
                raise NotApplicable("a signal could not be read: see the check 'reads'") from error


@check("dataset")
def finds_samples(subject: Subject) -> None:
    """It finds samples."""
    samples = subject.made().samples()
    require(len(samples), "samples() returns no samples; if there are none, raise a DataError that says so")


@check("dataset")
def keys_unique(subject: Subject) -> None:
    """No two samples have the same key."""
    _, samples = found_samples(subject)
    twice = [str(key) for key, count in Counter(sample.key for sample in samples).items() if count > 1]
    require(not twice, f"several samples have the key ({twice[0] if twice else ''})")


@check("dataset")
def labels_in_range(subject: Subject) -> None:
    """Labels are indices of its classes, or numbers as its target says, and names are unique."""
    dataset, samples = found_samples(subject)
    classes = list(dataset.classes)
    require(len(set(classes)) == len(classes) > 0, f"its classes are {classes}")
    try:
        check_targets(dataset, samples)
    except DataError as error:
        raise ConformanceError(str(error)) from error
    labels = {sample.label for sample in samples} - {None}
    wrong = sorted(str(label) for label in labels if not isinstance(label, int) or not 0 <= label < len(classes))
    require(not wrong, f"labels {', '.join(wrong[:5])} are not indices of its {len(classes)} classes")


@check("dataset")
def modalities_named(subject: Subject) -> None:
    """Samples have sources of its modalities only, and each modality has the name under which it is listed."""
    dataset, samples = found_samples(subject)
    unlike = [name for name, modality in dataset.modalities.items() if modality.name != name]
    require(
        not unlike,
        f"modalities {', '.join(unlike)} are listed under another name than that of their Modality; use Modality.renamed",
    )
    unknown = {name for sample in samples for name in sample.sources} - set(dataset.modalities)
    require(not unknown, f"samples have {', '.join(sorted(unknown))}, which is not one of its modalities")
    without_sources = [str(sample.key) for sample in samples if not sample.sources]
    require(not without_sources, f"no signals were recorded for {'; '.join(without_sources[:3])}")


@check("dataset")
def reads(subject: Subject) -> None:
    """Every signal of a few samples can be read."""
    dataset, samples = some(subject)
    for sample in samples:
        for name in sample.sources:
            if name in dataset.modalities:
                signal = dataset.read(sample, name)
                require(isinstance(signal, Signal), f"read gives a {type(signal).__name__}, not a Signal")


@check("dataset")
def signals_fit(subject: Subject) -> None:
    """Signals have the axes and channels of their modality, and finite values."""
    modalities = subject.made().modalities
    for sample, name, signal in signals(subject):
        modality: Modality = modalities[name]
        what, shape = f"{name} of {sample.key}", signal.values.shape
        require(len(signal) > 0, f"{what} is empty")
        require(len(shape) == len(modality.axes), f"{what} has shape {shape}, but the axes {modality.axes}")
        if modality.channels:
            count = shape[modality.axes.index("channel")]
            require(count == len(modality.channels), f"{what} has {count} channels, not {', '.join(modality.channels)}")
        numbers = signal.values.dtype.kind in "fiu"
        require(
            numbers and np.isfinite(signal.values).all(),
            f"{what} contains {signal.values.dtype} values that are not all finite",
        )


@check("dataset")
def clocks_run(subject: Subject) -> None:
    """Rates are positive, and every sample of a signal has a time, in increasing order."""
    for sample, name, signal in signals(subject):
        what = f"{name} of {sample.key}"
        require(np.isfinite(signal.rate) and signal.rate > 0, f"{what} has a rate of {signal.rate}")
        require(len(signal.clock) == len(signal), f"{what} has {len(signal)} samples and {len(signal.clock)} times")
        require((np.diff(signal.clock) >= 0).all(), f"the times of {what} are not in order")


@check("dataset")
def repeatable(subject: Subject) -> None:
    """Constructed again, it returns the same samples in the same order, and the same signals."""
    _, samples = found_samples(subject)
    other = subject.made()
    first, second = (
        [(each.key, each.label, each.target, each.weight, tuple(each.sources)) for each in listed]
        for listed in (samples, other.samples())
    )
    require(first == second, "constructed again, it returns different samples or another order")
    for sample, name, signal in signals(subject):
        again = other.read(sample, name)
        equal = np.array_equal(signal.values, again.values, equal_nan=signal.values.dtype.kind == "f")
        require(equal and np.array_equal(signal.clock, again.clock), f"{name} of {sample.key} read twice differs")


@check("dataset")
def fingerprint_stable(subject: Subject) -> None:
    """Constructed again, it has the same fingerprint, which identifies prepared data in the cache."""
    prints = []
    for number in range(2):
        dataset, samples = found_samples(subject)
        folder = subject.folder / "fingerprints"
        prints.append(fingerprint(dataset, samples, {}, Hashes(folder / f"{number}.json")))
    hint = "its version, classes and sources must depend on the recordings only"
    require(prints[0] == prints[1], f"its fingerprint changes from {prints[0]} to {prints[1]}; {hint}")


@check("dataset")
def missing_folder_clear(subject: Subject) -> None:
    """Its constructor opens no file; for a missing folder or file, `samples` raises a DataError."""
    subject.made()
    filled = options_model(subject.entry)(**subject.options)
    paths = [name for name in type(filled).model_fields if isinstance(getattr(filled, name), Path)]
    skip_unless(paths, "none of its options is a path")
    nowhere = subject.folder / "nowhere"
    for name in paths:
        try:
            dataset = subject.construct({name: nowhere})
        except Exception as error:
            raise ConformanceError(f"its constructor opens {name}: {type(error).__name__}: {error}") from error
        _expect_data_error(lambda d=dataset: d.samples(), f"if {name} does not exist, samples()", "nowhere")


@check("dataset")
def damaged_file_clear(subject: Subject) -> None:
    """A damaged file raises a DataError that names it."""
    dataset, samples = some(subject)
    tried = False
    for name, source in samples[0].sources.items():
        if isinstance(source, Path) and source.is_file():
            tried = True
            damaged = subject.folder / f"damaged{source.suffix}"
            damaged.write_bytes(b"\x00\xff no recording \xfe" * 9)
            sample = replace(samples[0], sources={**samples[0].sources, name: damaged})
            _expect_data_error(lambda s=sample, n=name: dataset.read(s, n), f"for a damaged file of {name}, read", "damaged")
    skip_unless(tried, "its sources are not files")


def _expect_data_error(act, when: str, named: str) -> None:
    try:
        act()
    except DataError as error:
        require(named in str(error), f"{when} raises a DataError that does not name the path: {error}")
        return
    except Exception as error:
        raise ConformanceError(f"{when} raises {type(error).__name__}: {error}; raise a DataError that names it") from error
    raise ConformanceError(f"{when} raises nothing; raise a DataError that names it")
