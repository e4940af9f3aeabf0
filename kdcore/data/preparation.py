"""Prepares data: lists, splits, reads, transforms and joins recordings into a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from kdcore.contracts.dataset import Dataset, Sample, SampleKey
from kdcore.contracts.protocol import HELD_OUT, Protocol, Splits
from kdcore.contracts.target import Target
from kdcore.data.branch import Branch
from kdcore.data.data_cache import Column, ColumnCache, Progress, Wanted
from kdcore.data.dropped import BAD, NO_SPLIT, SHORT, Dropped, DropReport, listed
from kdcore.data.fingerprint import Hashes, UnidentifiedError, fingerprint
from kdcore.data.key_join import JoinedRows, KeyJoin
from kdcore.data.labels import label_warnings, refuse_unlabelled, told_labels
from kdcore.data.leakage import content_leaks
from kdcore.data.near_copies import near_copies
from kdcore.data.outlines import resampled_copies
from kdcore.data.pipeline import Pipeline
from kdcore.data.signal_checks import interrupted, odd_rates
from kdcore.data.splits import (
    checked_splits,
    class_warnings,
    complete_samples,
    left_out,
    without,
    without_signals,
)
from kdcore.data.table import Table
from kdcore.data.targets import check_targets, target_warnings, with_statistics
from kdcore.data.windows import Cutting
from kdcore.errors import DataError, ListingError, SplitError
from kdcore.recipe.data_models import DataSpec
from kdcore.user_warnings import warn


def listed_samples(dataset: Dataset, on_bad_sample: str = "error") -> tuple[Sequence[Sample], list[Dropped]]:
    """List the samples of `dataset` and its unusable recordings, without reading signals.

    Raises:
        ListingError: If its folder is invalid, or a recording is damaged and `on_bad_sample` is ``error``.
    """
    with _raised_as(ListingError):
        samples = dataset.samples()
        check_targets(dataset, samples)
    faults = [str(each) for each in dataset.unusable if each.fault]
    if faults and on_bad_sample == "error":
        what = f"{len(faults)} recordings cannot be used (data.on_bad_sample: skip leaves them out)"
        raise ListingError(listed(what, faults))
    if not samples:
        raise ListingError(listed("no sample is left", faults) if faults else "the dataset found no samples")
    return samples, [Dropped(each.what, each.subject, each.reason, each.detail) for each in dataset.unusable]


def asked_splits(protocol: Protocol, samples: Sequence[Sample]) -> Splits:
    """Divide `samples` by `protocol`, without checks for leakage.

    Raises:
        SplitError: If the protocol cannot be applied.
    """
    with _raised_as(SplitError):
        return protocol.split(samples)


@contextmanager
def _raised_as(kind: type[DataError]) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise kind(str(error)) from error


@dataclass(frozen=True)
class Requirements:
    """Signals that a sample must have if `data.missing` is ``mask``.

    Args:
        students: Students; samples without their signals are dropped.
        together: Fused teachers; they run only on samples with the signals of all of them.
    """

    students: frozenset[str] = frozenset()
    together: tuple[str, ...] = ()


def load_splits(
    dataset: Dataset,
    protocol: Protocol,
    spec: DataSpec,
    modalities: Sequence[str],
    required: Sequence[str] | None = None,
) -> tuple[list[Sample], Splits, list[Dropped]]:
    """List, split and audit samples; returns the samples that have `modalities`, the splits, and dropped recordings.

    The protocol divides all samples, and those that lack a modality are dropped afterwards. So a rule such as "every other
    subject" gives the same splits whatever is missing.

    Args:
        dataset: The dataset.
        protocol: The protocol.
        spec: The recipe's data section.
        modalities: All modalities of the recipe.
        required: With ``missing: mask``, the modalities that a sample must have; all by default.

    Raises:
        DataError: If a sample is invalid; ListingError for the dataset's folder, SplitError for the splits.
    """
    samples, dropped = listed_samples(dataset, spec.on_bad_sample)
    whole = asked_splits(protocol, samples)
    split_of = whole.split_of
    try:
        kept, lacking = complete_samples(samples, modalities, spec.missing, required)
    except DataError as error:
        raise DataError(listed(str(error), list(dataset.notes)) if dataset.notes else str(error)) from error
    dropped += [replace(each, split=split_of.get(key, "")) for key, each in lacking.items()]
    dropped += [Dropped.of(each.key, NO_SPLIT) for each in kept if each.key not in split_of]
    with _raised_as(SplitError):
        fit = (len(dataset.classes), spec.labels != "withheld", dataset.target)
        splits = checked_splits(whole, *fit)
        if lacking:
            splits = checked_splits(without(whole, lacking), *fit)
    return kept, splits, dropped


def recordings_fingerprint(dataset: Dataset, samples: Sequence[Sample], spec: DataSpec, folder: Path) -> str:
    """The fingerprint of the recordings that a run uses.

    Args:
        dataset: The dataset.
        samples: The samples that have every modality in use.
        spec: The recipe's data section, with the dataset's options filled in.
        folder: Cache folder, with the hashes of unchanged files.

    Raises:
        UnidentifiedError: If a source holds an object without known content.
    """
    return fingerprint(dataset, samples, spec.dataset.options, Hashes(folder / "hashes.json"))


def load_table(
    dataset: Dataset,
    protocol: Protocol,
    spec: DataSpec,
    pipelines: Mapping[str, Pipeline],
    folder: Path,
    memory_limit: int,
    progress: Progress = lambda done, total, what: None,
    requirements: Requirements | None = None,
) -> Table:
    """Read, join, split and transform the signals of all participants in `pipelines`.

    Transforms per batch stay in the pipelines' `batch_transforms`. Tensors over `memory_limit` bytes are memory-mapped.

    Raises:
        DataError: If recordings, splits or shapes are invalid.
    """
    requirements = requirements or Requirements(frozenset(pipelines))
    branches = [branch for pipeline in pipelines.values() for branch in pipeline.branches]
    _require_time_first(branches)
    modalities = sorted({branch.modality.name for branch in branches})
    required = sorted({each.modality.name for name in requirements.students for each in pipelines[name].branches})
    samples, splits, dropped = load_splits(dataset, protocol, spec, modalities, required)
    identity = _identity(dataset, samples, spec, folder)
    samples, splits, said = with_shares_missing(samples, splits, spec, modalities, required, dropped)
    cutting = Cutting(spec.window.length, spec.window.hop or spec.window.length, tuple(modalities)) if spec.window else None
    join = KeyJoin(samples, splits, 0 if dataset.target.is_classes else len(dataset.classes))
    columns = _columns(branches, join, ColumnCache(folder, memory_limit), dataset, identity, cutting, progress)
    bad = _bad(columns.values(), spec)
    joined = join.rows([columns[id(branch)] for branch in branches], [branch.modality.name for branch in branches])
    dropped += _without_rows(join, joined, bad)
    odd = _odd_clocks(columns, branches, dataset)
    with _raised_as(SplitError):
        warned = _refuse_copies(splits, columns, branches, dataset)
    _refuse_empty(joined.by_split, odd)
    train_labels, target, told = _training_labels(dataset, spec, joined)
    present = _present(pipelines, columns, joined, requirements.together)
    inputs = _inputs(pipelines, columns, joined, present, memory_limit, folder)
    warned += [*told, *dataset.notes, *odd, *said, *_absences(present, joined.by_split)]
    warned += class_warnings(join.used(joined), dataset.classes) if dataset.target.is_classes else []
    report = DropReport(tuple(dropped))
    for warning in [*warned, *report.lines()]:
        warn(warning)
    return Table(
        keys=joined.keys,
        labels=joined.labels,
        train_labels=train_labels,
        rows=joined.by_split,
        inputs=inputs,
        classes=tuple(dataset.classes),
        splits=splits,
        fingerprint=identity or f"unknown-{uuid4().hex[:8]}",  # equal to no other run's
        dropped=report,
        warnings=tuple(warned),
        present=present,
        sampler=spec.sampler,
        mix=spec.mix,
        target=target,
        weights=joined.weights,
    )


def _refuse_empty(rows: Mapping[str, Tensor], odd: list[str]) -> None:
    """Refuse splits without samples to train or test on, with the lines on odd rates, which may be the reason."""
    for split in ("train", "test"):
        if not len(rows[split]):
            what = f"no {split} sample is left after unreadable and short ones were skipped"
            raise DataError(listed(what, odd) if odd else what)


def _training_labels(dataset: Dataset, spec: DataSpec, joined: JoinedRows) -> tuple[Tensor, Target, list[str]]:
    """The training labels of each row, the target with the statistics of values, and warnings about both."""
    labels, rows, keys, names = joined.labels, joined.by_split, joined.keys, dataset.classes
    if spec.labels not in ("partial", "withheld"):
        refuse_unlabelled(labels, rows, keys)
    told = told_labels(labels, rows, spec, len(names), keys)
    warned = [*label_warnings(labels, told, rows, spec, names), *target_warnings(labels, told, rows, dataset.target, names)]
    target = with_statistics(dataset.target, told, rows, names)
    return target.normalised(told) if target.mean else told, target, warned


def with_shares_missing(
    samples: list[Sample],
    splits: Splits,
    spec: DataSpec,
    modalities: Sequence[str],
    required: Sequence[str],
    dropped: list[Dropped],
) -> tuple[list[Sample], Splits, list[str]]:
    """Samples and splits with a share of the signals left out, as the recipe asks, and a sentence on each share.

    Samples that cannot be used any more are added to `dropped`.
    """
    if not spec.missing_shares:
        return samples, splits, []
    if unknown := sorted(set(spec.missing_shares) - set(modalities)):
        raise DataError(f"data.missing_shares: the recipe does not use {unknown[0]!r} (it uses {', '.join(modalities)})")
    gone = left_out(splits, spec.missing_shares, spec.missing_seed, HELD_OUT)
    splits = replace(
        splits,
        samples={
            split: tuple(without_signals(sample, gone.get(sample.key, ())) for sample in members)
            for split, members in splits.samples.items()
        },
    )
    samples = [without_signals(sample, gone.get(sample.key, ())) for sample in samples]
    kept, lacking = complete_samples(samples, modalities, spec.missing, required)
    split_of = splits.split_of
    dropped += [replace(each, reason=f"{each.reason}, left out", split=split_of.get(key, "")) for key, each in lacking.items()]
    said = []
    for modality, share in sorted(spec.missing_shares.items()):
        count = sum(modality in each for each in gone.values())
        drawn = f"{100 * share:g} %, at random, seed {spec.missing_seed}"
        said.append(f"{modality}: left out of {count} training samples ({drawn})")
    return kept, without(splits, lacking), said


def _present(
    pipelines: Mapping[str, Pipeline], columns: Mapping[int, Column], joined: JoinedRows, together: Sequence[str]
) -> dict[str, Tensor]:
    """Participant → (N,) bool, which rows have its signals; without participants that have all."""
    masks = {}
    for name, pipeline in pipelines.items():
        having = [joined.present(columns[id(each)], each.modality.name) for each in pipeline.branches]
        masks[name] = torch.from_numpy(np.logical_and.reduce(having))
    if together:
        common = torch.stack([masks[name] for name in together]).all(0)
        masks |= dict.fromkeys(together, common)
    return {name: mask for name, mask in masks.items() if not bool(mask.all())}


def _fitting_rows(name: str, train: Tensor, present: Mapping[str, Tensor]) -> Tensor:
    """The training rows that a participant's transforms may be fitted on."""
    rows = train[present[name][train]] if name in present else train
    if not len(rows):
        raise DataError(f"no training sample has the signals of {name}")
    return rows


def _absences(present: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> Iterator[str]:
    for name, mask in present.items():
        counts = {split: int((~mask[each]).sum()) for split, each in rows.items()}
        where = ", ".join(f"{count} of {len(rows[split])} in {split}" for split, count in counts.items() if count)
        yield f"{name}: no signals for {where}; terms that read it leave these samples out"


def _identity(dataset: Dataset, samples: Sequence[Sample], spec: DataSpec, folder: Path) -> str | None:
    """The recordings' fingerprint; None if they have none, so that nothing is cached."""
    try:
        return recordings_fingerprint(dataset, samples, spec, folder)
    except UnidentifiedError as error:
        warn(f"prepared data are not cached: {error}")
        return None


def _require_time_first(branches: Iterable[Branch]) -> None:
    for modality in (branch.modality for branch in branches):
        if modality.axes[0] != "time":
            raise DataError(f"{modality.name}: a recording's first axis is time, the dataset says {modality.axes}")


def _columns(
    branches: Sequence[Branch],
    join: KeyJoin,
    cache: ColumnCache,
    dataset: Dataset,
    identity: str | None,
    cutting: Cutting | None,
    progress: Progress,
) -> dict[int, Column]:
    """Columns by the `id` of their branch. Branches of one modality with the same transforms share a column."""
    same = {id(branch): (branch.modality.name, branch.identity) for branch in branches}
    distinct: dict[tuple[str, str], Branch] = {}
    for branch in branches:
        distinct.setdefault(same[id(branch)], branch)
    wanted = [Wanted(each, join.having(each.modality.name).tolist()) for each in distinct.values()]
    found = cache.columns(dataset, join.samples, wanted, identity, cutting, progress)
    shared = dict(zip(distinct, found, strict=True))
    return {id(branch): shared[same[id(branch)]] for branch in branches}


def _inputs(
    pipelines: Mapping[str, Pipeline],
    columns: Mapping[int, Column],
    joined: JoinedRows,
    present: Mapping[str, Tensor],
    limit: int,
    folder: Path,
) -> dict[str, tuple[Tensor, ...]]:
    """Each participant's inputs, row by row, after those of its transforms that are done once."""
    train, found = joined.by_split["train"], {}
    for name, pipeline in pipelines.items():
        parts = [joined.values_of(columns[id(each)], each.modality.name, limit, folder) for each in pipeline.branches]
        found[name] = pipeline.prepare(parts, _fitting_rows(name, train, present), limit, folder)
    return found


def _bad(columns: Iterable[Column], spec: DataSpec) -> dict[SampleKey, str]:
    """Sample → what is wrong with its recording; an error unless the recipe skips such samples."""
    bad = {column.samples[number].key: why for column in columns for number, why in column.bad.items()}
    if bad and spec.on_bad_sample == "error":
        what = f"{len(bad)} bad samples (data.on_bad_sample: skip leaves them out)"
        raise DataError(listed(what, [f"{key}: {why}" for key, why in bad.items()]))
    return bad


def _without_rows(join: KeyJoin, joined: JoinedRows, bad: Mapping[SampleKey, str]) -> Iterator[Dropped]:
    """The samples of all splits that became no row: bad ones, and those shorter than a window."""
    for split, sample in join.unused(joined):
        key = sample.key
        yield Dropped.of(key, BAD if key in bad else SHORT, bad.get(key, ""), split)


def _by_key(samples: Sequence[Sample], texts: Sequence[str]) -> dict[SampleKey, str]:
    """Sample → its text, without empty ones."""
    return {sample.key: text for sample, text in zip(samples, texts, strict=True) if text}


def _odd_clocks(columns: Mapping[int, Column], branches: Sequence[Branch], dataset: Dataset) -> list[str]:
    """Lines on recordings with gaps, and on those whose rate is implausible, or not the dataset's."""
    rates: dict[str, dict[SampleKey, float]] = {}
    gaps: dict[str, dict[SampleKey, float]] = {}
    for branch in branches:
        column, name = columns[id(branch)], branch.modality.name
        known = list(zip(column.samples, column.rates, column.gaps, strict=True))
        rates[name] = {sample.key: rate for sample, rate, _ in known if rate}
        gaps[name] = {sample.key: gap for sample, _, gap in known}
    said = [line for name, found in gaps.items() for line in interrupted(dataset.modalities[name], found)]
    return said + [line for name, found in rates.items() for line in odd_rates(dataset.modalities[name], found)]


def _refuse_copies(splits: Splits, columns: Mapping[int, Column], branches: Sequence[Branch], dataset: Dataset) -> list[str]:
    """Check for equal recordings in several splits: an error if one is the test split, else warnings."""
    contents, sketches, outlines, repeated = {}, {}, {}, {}
    for branch in branches:
        name, column = branch.modality.name, columns[id(branch)]
        contents[name] = _by_key(column.samples, column.contents)
        sketches[name] = _by_key(column.samples, column.sketches)
        outlines[name] = _by_key(column.samples, column.outlines)
        if len(set(contents[name].values())) < len(contents[name]):
            repeated[name] = contents[name]
    leaks, copies = content_leaks(splits, repeated)
    leaks += near_copies(splits, sketches, contents, dataset.read)
    if leaks:
        raise SplitError(listed("the splits leak", leaks))
    repeats = [listed(f"{len(copies)} recordings occur more than once", copies)] if copies else []
    return [*repeats, *resampled_copies(splits, outlines, contents)]
