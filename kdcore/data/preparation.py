"""From recordings to a table: list, split, read, transform, join."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from kdcore.contracts.dataset import Dataset, Sample, SampleKey
from kdcore.contracts.protocol import Protocol, Split
from kdcore.data.data_cache import Column, ColumnCache, Progress, fingerprint
from kdcore.data.pipeline import Pipeline
from kdcore.data.splits import checked_split, complete_samples, labelled_share, noisy_labels
from kdcore.data.table import Table
from kdcore.data.windows import Cutting
from kdcore.errors import DataError, ListingError, SplitError
from kdcore.recipe.config_models import DataSpec, LabelledShare


def listed_samples(dataset: Dataset) -> Sequence[Sample]:
    """What `dataset` finds, nothing read yet.

    Raises:
        ListingError: If its folder is unfit.
    """
    with _raised_as(ListingError):
        return dataset.samples()


def asked_split(protocol: Protocol, samples: Sequence[Sample]) -> Split:
    """`samples` as `protocol` divides them, not looked at for leaks.

    Raises:
        SplitError: If they cannot be divided so.
    """
    with _raised_as(SplitError):
        return protocol.split(samples)


@contextmanager
def _raised_as(kind: type[DataError]) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise kind(str(error)) from error


def load_split(
    dataset: Dataset, protocol: Protocol, spec: DataSpec, modalities: Sequence[str]
) -> tuple[list[Sample], Split, list[str]]:
    """The samples that have `modalities`, divided by `protocol` and audited, and notes on what was left out.

    Raises:
        DataError: If a sample is unfit; a ListingError if the folder is, a SplitError if the split is.
    """
    samples, left_out = complete_samples(listed_samples(dataset), modalities, spec.missing)
    split = asked_split(protocol, samples)
    with _raised_as(SplitError):
        split = checked_split(split, len(dataset.classes), spec.labels != "withheld")
    return samples, split, [f"left out: {line}" for line in left_out]


def recordings_fingerprint(dataset: Dataset, samples: Sequence[Sample], spec: DataSpec, folder: Path) -> str:
    """The identity of the recordings that a run uses, as its record keeps it.

    Args:
        dataset: The dataset.
        samples: The samples that have every modality in use.
        spec: The recipe's data section, with the dataset's options filled in.
        folder: Cache folder, which remembers the hashes of unchanged files.
    """
    return fingerprint(dataset, samples, spec.dataset.options, folder / "hashes.json")


def load_table(
    dataset: Dataset,
    protocol: Protocol,
    spec: DataSpec,
    pipelines: Mapping[str, Pipeline],
    folder: Path,
    memory_limit: int,
    progress: Progress = lambda done, total, what: None,
) -> Table:
    """Read, join, split and prepare everything that `pipelines` ask for.

    Args:
        dataset: Where samples come from.
        protocol: How they are divided.
        spec: The recipe's data section.
        pipelines: Participant → its transforms; what cannot be done once is left in each one's `live`.
        folder: Of cached columns.
        memory_limit: Bytes a tensor may take in memory.
        progress: Told (done, total, what) while recordings are read.

    Raises:
        DataError: If recordings, split or shapes are unfit.
    """
    branches = [branch for pipeline in pipelines.values() for branch in pipeline.branches]
    modalities = sorted({branch.modality.name for branch in branches})
    samples, split, notes = load_split(dataset, protocol, spec, modalities)
    identity = recordings_fingerprint(dataset, samples, spec, folder)
    cutting = Cutting(spec.window.length, spec.window.hop or spec.window.length, tuple(modalities)) if spec.window else None
    cache = ColumnCache(folder, memory_limit)
    columns: dict[int, Column] = {}
    made: dict[str, Column] = {}
    for branch in branches:
        same = f"{branch.modality.name}|{branch.identity}"
        made[same] = made.get(same) or cache.column(dataset, samples, branch, identity, cutting, progress)
        columns[id(branch)] = made[same]
    notes += _refuse_or_note_bad(columns.values(), spec)
    keys = _joined(columns.values(), samples, split)
    labels, parts = _labels(keys, split), _parts(keys, split)
    if spec.labels != "withheld":
        _refuse_unlabelled(labels, parts, keys)
    taught = _taught(labels, parts, spec, len(dataset.classes))
    inputs = {
        name: pipeline.prepare([_rows(columns[id(each)], keys) for each in pipeline.branches], parts["train"], memory_limit)
        for name, pipeline in pipelines.items()
    }
    return Table(keys, labels, taught, parts, inputs, tuple(dataset.classes), split, identity, notes)


def _refuse_or_note_bad(columns: Iterable[Column], spec: DataSpec) -> list[str]:
    bad = {key: why for column in columns for key, why in column.bad.items()}
    lines = [f"{key}: {why}" for key, why in bad.items()]
    if bad and spec.on_bad_sample == "error":
        shown = "\n  ".join(lines[:20]) + (f"\n  and {len(lines) - 20} more" if len(lines) > 20 else "")
        raise DataError(f"{len(lines)} bad samples (data.on_bad_sample: skip leaves them out):\n  {shown}")
    return [f"skipped: {line}" for line in lines]


def _joined(columns: Iterable[Column], samples: Sequence[Sample], split: Split) -> tuple[SampleKey, ...]:
    """Keys that every column has, in the samples' order, without those that the split leaves out."""
    common = set.intersection(*(set(column.keys) for column in columns))
    if not common:
        raise DataError("no sample is left: every one is bad, or shorter than a window (kdcore data check counts them)")
    order = {sample.key: number for number, sample in enumerate(samples)}
    used = {sample.key for members in split.parts.values() for sample in members}
    kept = [key for key in common if _recorded(key) in used]
    return tuple(sorted(kept, key=lambda key: (order[_recorded(key)], key.window)))


def _recorded(key: SampleKey) -> SampleKey:
    """The sample that a window was cut from."""
    return replace(key, window=0)


def _labels(keys: Sequence[SampleKey], split: Split) -> Tensor:
    label_of = {sample.key: sample.label for members in split.parts.values() for sample in members}
    found = [label_of[_recorded(key)] for key in keys]
    return torch.tensor([-1 if label is None else label for label in found], dtype=torch.int64)


def _parts(keys: Sequence[SampleKey], split: Split) -> dict[str, Tensor]:
    part_of = {sample.key: part for part, members in split.parts.items() for sample in members}
    rows: dict[str, list[int]] = {part: [] for part in split.parts}
    for row, key in enumerate(keys):
        rows[part_of[_recorded(key)]].append(row)
    for part in ("train", "test"):
        if not rows[part]:
            raise DataError(f"no {part} sample is left after unreadable ones were skipped")
    return {part: torch.tensor(found, dtype=torch.int64) for part, found in rows.items()}


def _taught(labels: Tensor, parts: Mapping[str, Tensor], spec: DataSpec, num_classes: int) -> Tensor:
    """The labels that training is told: with the recipe's noise, and -1 where it withholds them."""
    taught = labels.clone()
    for part, rows in parts.items():
        if part not in ("validation", "test"):
            told = noisy_labels(labels[rows].numpy(), spec.label_noise, num_classes, seed=spec.label_noise_seed)
            if isinstance(spec.labels, LabelledShare) and part == "train":
                told = labelled_share(told, spec.labels.share, spec.labels.seed)
            taught[rows] = torch.from_numpy(told)
    return taught


def _refuse_unlabelled(labels: Tensor, parts: Mapping[str, Tensor], keys: Sequence[SampleKey]) -> None:
    for part, rows in parts.items():
        without = rows[labels[rows] < 0]
        if len(without):
            raise DataError(
                f"{len(without)} samples of the part {part} have no label, e.g. {keys[int(without[0])]}; "
                f"with data.labels: withheld, students learn without"
            )


def _rows(column: Column, keys: tuple[SampleKey, ...]) -> Tensor:
    """The column's rows for `keys`; the column itself where nothing is to be moved."""
    if column.keys == keys:
        return column.values
    where = {key: row for row, key in enumerate(column.keys)}
    return column.values[torch.tensor([where[key] for key in keys])]
