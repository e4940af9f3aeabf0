"""Prepares data: lists, splits, reads, transforms and joins recordings into a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from kdcore.contracts.dataset import Dataset, Sample, SampleKey
from kdcore.contracts.protocol import Protocol
from kdcore.contracts.target import Target
from kdcore.data.branch import Branch
from kdcore.data.copies import copy_warnings
from kdcore.data.data_cache import Column, ColumnCache, Progress
from kdcore.data.dropped import Dropped, DropReport, listed
from kdcore.data.fingerprint import Hashes, UnidentifiedError, fingerprint
from kdcore.data.key_join import JoinedRows, KeyJoin
from kdcore.data.labels import label_warnings, refuse_unlabelled, training_labels
from kdcore.data.leakage import leakage_checks
from kdcore.data.mapped import Storage
from kdcore.data.pipeline import Pipeline
from kdcore.data.signal_checks import interrupted, odd_rates, odd_units
from kdcore.data.splits import class_warnings, load_splits, raised_as, without_shares
from kdcore.data.table import Table
from kdcore.data.targets import target_warnings, with_statistics
from kdcore.data.windows import Cutting
from kdcore.errors import DataError, SplitError
from kdcore.recipe.data_models import DataSpec
from kdcore.user_warnings import warn

MEASURED = 64
"""Number of prepared recordings whose unit is checked."""

Columns = Mapping[tuple[str, str], Column]
"""Columns by the key of the branches that they belong to."""


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
    required: Sequence[frozenset[str]] | None = None,
    together: Sequence[str] = (),
) -> Table:
    """Read, join, split and transform the signals of all participants in `pipelines`.

    Transforms per batch stay in the pipelines' `batch_transforms`.

    Args:
        dataset: The dataset.
        protocol: The protocol.
        spec: The recipe's data section, with the dataset's options filled in.
        pipelines: Participant → its transforms.
        folder: Cache folder.
        memory_limit: Size in bytes above which a tensor is memory-mapped.
        progress: Progress callback, called with (done, total, what).
        required: Sets of modalities, of which a sample must have one, see `divide`; by default, it must have all modalities.
        together: Fused teachers, which run only on samples with the signals of all of them.

    Raises:
        DataError: If recordings, splits or shapes are invalid.
    """
    branches = [branch for pipeline in pipelines.values() for branch in pipeline.branches]
    _require_time_first(branches)
    modalities = sorted({branch.modality.name for branch in branches})
    required = [frozenset(modalities)] if required is None else required
    divided = load_splits(dataset, protocol, spec, required)
    identity = _identity(dataset, divided.samples, spec, folder)
    divided = without_shares(divided, spec, modalities, required)
    samples, splits = divided.samples, divided.splits
    cutting = Cutting(spec.window.length, spec.window.hop or spec.window.length, tuple(modalities)) if spec.window else None
    join = KeyJoin(samples, splits, 0 if dataset.target.is_classes else len(dataset.classes))
    checks = leakage_checks()
    cache = ColumnCache(folder, memory_limit, checks)
    columns = cache.columns(dataset, samples, branches, identity, cutting, progress)
    bad = _bad_samples(columns, spec)
    joined = join.rows([(column, modality) for (modality, _), column in columns.items()])
    odd = [*_odd_clocks(columns, dataset), *_odd_units(columns, branches)]
    with raised_as(SplitError):
        copies = copy_warnings(splits, [(name, column) for (name, _), column in columns.items()], checks, dataset.read)
    _refuse_empty(joined.by_split, odd)
    train_labels, target, label_notes = _training_labels(dataset, spec, joined)
    present = _present(pipelines, columns, joined, together)
    inputs = _inputs(pipelines, columns, joined, present, Storage(memory_limit, folder))
    warnings = [*copies, *label_notes, *dataset.notes, *odd, *divided.left_out, *_absences(present, joined.by_split)]
    warnings += _fill_notes(pipelines, columns, joined)
    warnings += class_warnings(join.used(joined), dataset.classes, splits) if dataset.target.is_classes else []
    report = DropReport((*divided.dropped, *_without_rows(join, joined, bad)))
    for warning in [*warnings, *report.lines()]:
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
        warnings=tuple(warnings),
        present=present,
        sampler=spec.sampler,
        mix=spec.mix,
        target=target,
        weights=joined.weights,
    )


def _require_time_first(branches: Iterable[Branch]) -> None:
    for modality in (branch.modality for branch in branches):
        if modality.axes[0] != "time":
            raise DataError(f"{modality.name}: a recording's first axis is time, the dataset says {modality.axes}")


def _identity(dataset: Dataset, samples: Sequence[Sample], spec: DataSpec, folder: Path) -> str | None:
    """Return the fingerprint of the recordings; None if they have none, so that nothing is cached."""
    try:
        return recordings_fingerprint(dataset, samples, spec, folder)
    except UnidentifiedError as error:
        warn(f"prepared data are not cached: {error}")
        return None


def _bad_samples(columns: Columns, spec: DataSpec) -> dict[SampleKey, str]:
    """Return what is wrong with each bad sample; raise an error unless the recipe skips them."""
    bad = {column.samples[number].key: why for column in columns.values() for number, why in column.bad.items()}
    if bad and spec.on_bad_sample == "error":
        what = f"bad samples: {len(bad)} (data.on_bad_sample: skip leaves them out)"
        raise DataError(listed(what, [f"{key}: {why}" for key, why in bad.items()]))
    return bad


def _without_rows(join: KeyJoin, joined: JoinedRows, bad: Mapping[SampleKey, str]) -> Iterator[Dropped]:
    """Yield the samples of all splits that became no row: bad ones, and those shorter than a window."""
    for split, sample in join.unused(joined):
        key = sample.key
        yield Dropped.of(key, Dropped.BAD if key in bad else Dropped.SHORT, bad.get(key, ""), split)


def _odd_clocks(columns: Columns, dataset: Dataset) -> list[str]:
    """Return lines on recordings with gaps, and on those with implausible rates or rates that the dataset does not declare."""
    lines: dict[str, None] = {}  # several branches may read one modality
    for (modality, _), column in columns.items():
        keys = [sample.key for sample in column.samples]
        gaps = dict(zip(keys, column.gaps, strict=True))
        rates = {key: rate for key, rate in zip(keys, column.rates, strict=True) if rate}
        lines |= dict.fromkeys(interrupted(dataset.modalities[modality], gaps))
        lines |= dict.fromkeys(odd_rates(dataset.modalities[modality], rates))
    return list(lines)


def _odd_units(columns: Columns, branches: Iterable[Branch]) -> list[str]:
    """Return lines on modalities that seem to be in another unit, judged by some of their prepared recordings."""
    lines: dict[str, None] = {}
    for branch in branches:
        spec, values = branch.prepared, columns[branch.key].values
        if sorted(spec.axes) == ["channel", "time"] and spec.units == branch.modality.units and len(values):
            some = values[:: -(-len(values) // MEASURED)]
            vectors = some.permute(0, 1 + spec.layout.index("time"), 1 + spec.layout.index("channel"))
            lines |= dict.fromkeys(odd_units(branch.modality, vectors.numpy()))
    return list(lines)


def _refuse_empty(rows: Mapping[str, Tensor], odd: list[str]) -> None:
    """Refuse splits without samples to train or test on, with the lines on odd rates, which may be the reason."""
    for split in ("train", "test"):
        if not len(rows[split]):
            what = f"no {split} sample is left after unreadable and short ones were skipped"
            raise DataError(listed(what, odd) if odd else what)


def _training_labels(dataset: Dataset, spec: DataSpec, joined: JoinedRows) -> tuple[Tensor, Target, list[str]]:
    """Return the training labels of each row, the target with the statistics of values, and warnings about both."""
    labels, rows, names = joined.labels, joined.by_split, dataset.classes
    if spec.labels not in ("partial", "withheld"):
        refuse_unlabelled(labels, rows, joined.keys)
    training = training_labels(labels, rows, spec, len(names), joined.keys)
    warnings = label_warnings(labels, training, rows, spec, names)
    warnings += target_warnings(labels, training, rows, dataset.target, names)
    target = with_statistics(dataset.target, training, rows, names)
    return target.normalised(training) if target.mean else training, target, warnings


def _present(
    pipelines: Mapping[str, Pipeline], columns: Columns, joined: JoinedRows, together: Sequence[str]
) -> dict[str, Tensor]:
    """Return (N,) bool masks of the rows that have a participant's signals, without participants that have all."""
    masks = {}
    for name, pipeline in pipelines.items():
        of_branches = [joined.present(columns[branch.key], branch.modality.name) for branch in pipeline.branches]
        enough = np.logical_or if pipeline.fill_missing else np.logical_and
        masks[name] = torch.from_numpy(enough.reduce(of_branches))
    if together:
        common = torch.stack([masks[name] for name in together]).all(0)
        masks |= dict.fromkeys(together, common)
    return {name: mask for name, mask in masks.items() if not bool(mask.all())}


def _absences(present: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> Iterator[str]:
    for name, mask in present.items():
        counts = {split: int((~mask[each]).sum()) for split, each in rows.items()}
        where = ", ".join(f"{count} of {len(rows[split])} in {split}" for split, count in counts.items() if count)
        yield f"{name}: no signals for {where}; terms that read it leave these samples out"


def _filled(pipeline: Pipeline, columns: Columns, joined: JoinedRows) -> tuple[Tensor, dict[str, Tensor]]:
    """Return an (N,) mask of the rows that have all modalities, and modality → mask of the rows where it is filled."""
    filled: dict[str, Tensor] = {}
    whole = torch.ones(len(joined.code), dtype=torch.bool)
    for branch in pipeline.branches if pipeline.fill_missing else ():
        there = torch.from_numpy(joined.present(columns[branch.key], branch.modality.name))
        whole, filled[branch.modality.name] = whole & there, ~there
    return whole, filled


def _fill_notes(pipelines: Mapping[str, Pipeline], columns: Columns, joined: JoinedRows) -> Iterator[str]:
    """Yield a line per participant and modality on the training samples where zeros replace the signals."""
    for name, pipeline in pipelines.items():
        for modality, absent in _filled(pipeline, columns, joined)[1].items():
            counts = {split: (int(absent[rows].sum()), len(rows)) for split, rows in joined.by_split.items()}
            if where := ", ".join(f"{count} of {of} in {split}" for split, (count, of) in counts.items() if count):
                yield f"{name}: no {modality} for {where}; zeros are used instead"


def _inputs(
    pipelines: Mapping[str, Pipeline],
    columns: Columns,
    joined: JoinedRows,
    present: Mapping[str, Tensor],
    storage: Storage,
) -> dict[str, tuple[Tensor, ...]]:
    """Return each participant's inputs, row by row, after those of its transforms that run once."""
    train, inputs = joined.by_split["train"], {}
    for name, pipeline in pipelines.items():
        whole, filled = _filled(pipeline, columns, joined)
        usable = whole[train] & present[name][train] if name in present else whole[train]
        fitted_on = train[usable]
        if not len(fitted_on):
            raise DataError(f"no training sample has the signals of {name}")
        parts = [joined.values_of(columns[branch.key], branch.modality.name, storage) for branch in pipeline.branches]
        for part, (modality, absent) in zip(parts, filled.items(), strict=False):
            if not absent.any():
                continue
            if not part.is_floating_point():
                raise DataError(f"{name}: fill_missing cannot fill signals of {part.dtype}, such as those of {modality}")
            part[absent] = torch.nan  # which every transform of the modality passes on, up to `FillMissing`
        try:
            inputs[name] = pipeline.prepare(parts, fitted_on, storage)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
    return inputs
