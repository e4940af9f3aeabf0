"""Prepares data: lists, splits, reads, transforms and joins recordings into a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from kdcore.contracts.dataset import Dataset, Sample, SampleKey
from kdcore.contracts.protocol import Protocol, Splits
from kdcore.contracts.target import Target
from kdcore.data.branch import Branch
from kdcore.data.data_cache import Column, ColumnCache, Progress, Wanted
from kdcore.data.dropped import Dropped, DropReport, listed
from kdcore.data.fingerprint import Hashes, UnidentifiedError, fingerprint
from kdcore.data.key_join import JoinedRows, KeyJoin
from kdcore.data.labels import label_warnings, refuse_unlabelled, told_labels
from kdcore.data.leakage import RecordingAudit, leakage_checks
from kdcore.data.pipeline import Pipeline
from kdcore.data.signal_checks import odd_rates
from kdcore.data.splits import class_warnings, load_splits, raised_as, with_shares_missing
from kdcore.data.table import Table
from kdcore.data.targets import target_warnings, with_statistics
from kdcore.data.windows import Cutting
from kdcore.errors import DataError, SplitError
from kdcore.recipe.data_models import DataSpec
from kdcore.user_warnings import warn


@dataclass(frozen=True)
class Requirements:
    """Signals that a sample must have if `data.missing` is ``mask``.

    Args:
        students: Students; samples without their signals are dropped.
        together: Fused teachers; they run only on samples with the signals of all of them.
    """

    students: frozenset[str] = frozenset()
    together: tuple[str, ...] = ()


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
    checks = leakage_checks()
    columns = _columns(branches, join, ColumnCache(folder, memory_limit, checks), dataset, identity, cutting, progress)
    bad = _bad(columns.values(), spec)
    joined = join.rows([columns[id(branch)] for branch in branches], [branch.modality.name for branch in branches])
    dropped += _without_rows(join, joined, bad)
    odd = _odd_rates(columns, branches, dataset)
    with raised_as(SplitError):
        warned = _refuse_copies(splits, columns, branches, RecordingAudit(checks, dataset.read))
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
        yield Dropped.of(key, Dropped.BAD if key in bad else Dropped.SHORT, bad.get(key, ""), split)


def _odd_rates(columns: Mapping[int, Column], branches: Sequence[Branch], dataset: Dataset) -> list[str]:
    """Lines on recordings whose rate is implausible, or not the dataset's."""
    rates: dict[str, dict[SampleKey, float]] = {}
    for branch in branches:
        column = columns[id(branch)]
        known = zip(column.samples, column.rates, strict=True)
        rates[branch.modality.name] = {sample.key: rate for sample, rate in known if rate}
    return [line for name, found in rates.items() for line in odd_rates(dataset.modalities[name], found)]


def _refuse_copies(
    splits: Splits, columns: Mapping[int, Column], branches: Sequence[Branch], audit: RecordingAudit
) -> list[str]:
    """Refuse recordings that leak into the test split; return warnings about other copies and possible ones."""
    for branch in branches:
        column = columns[id(branch)]
        for number, sample in enumerate(column.samples):
            summaries = {name: texts[number] for name, texts in column.summaries.items()}
            audit.add_summarised(sample.key, branch.modality.name, column.contents[number], summaries)
    leaks, copies = audit.leaks(splits)
    if leaks:
        raise SplitError(listed("the splits leak", leaks))
    repeats = [listed(f"{len(copies)} recordings occur more than once", copies)] if copies else []
    return [*repeats, *audit.possible_leaks(splits)]
