"""Join of the modalities' rows by sample, on integer positions instead of keys, which stays fast at 100,000 samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdcore.contracts.dataset import Sample, SampleKey
from kdcore.contracts.protocol import Splits
from kdcore.data.data_cache import Column
from kdcore.data.mapped import Storage
from kdcore.errors import DataError

Positions = NDArray[np.int64]


class KeyJoin:
    """Samples by position, with their split and label.

    Args:
        samples: All that have the modalities they need.
        splits: The splits, whose members decide a sample's label.
        names: Numbers of a sample's target; 0 if it has a class.
    """

    def __init__(self, samples: Sequence[Sample], splits: Splits, names: int = 0):
        self.samples, self.splits = samples, splits
        position = {sample.key: number for number, sample in enumerate(samples)}
        self._members = {
            split: np.fromiter((position.get(each.key, -1) for each in members), np.int64, len(members))
            for split, members in splits.samples.items()
        }
        self.split = np.full(len(samples), -1, np.int64)
        self.label = np.full((len(samples), names), np.nan, np.float32) if names else np.full(len(samples), -1, np.int64)
        for number, (split, members) in enumerate(splits.samples.items()):
            positions = self._members[split]
            labels = _labels(members, names)
            self.split[positions[positions >= 0]] = number
            self.label[positions[positions >= 0]] = labels[positions >= 0]
        self._having: dict[str, NDArray[np.bool_]] = {}

    def _has(self, modality: str) -> NDArray[np.bool_]:
        """(len(samples),) which samples have a modality."""
        if modality not in self._having:
            self._having[modality] = np.fromiter((modality in each.sources for each in self.samples), bool, len(self.samples))
        return self._having[modality]

    def positions_with(self, modality: str) -> Positions:
        """The positions of the samples that have a modality."""
        return np.flatnonzero(self._has(modality))

    def rows(self, columns: Sequence[tuple[Column, str]]) -> JoinedRows:
        """Return the rows that all columns of a sample's modalities have, in the samples' order, without those in no split.

        Args:
            columns: Columns with the names of their modalities.

        Raises:
            DataError: If there are none.
        """
        width = 1 + max((int(column.windows.max(initial=0)) for column, _ in columns), default=0)
        joined = JoinedRows(self, width, np.empty(0, np.int64))
        codes = [joined.codes(column, modality) for column, modality in columns]
        common = np.unique(np.concatenate(codes))
        for of_column, (_, modality) in zip(codes, columns, strict=True):
            common = common[np.isin(common, of_column, assume_unique=True) | ~self._has(modality)[common // width]]
        if not len(common):
            raise DataError("no samples are left: all are bad or shorter than a window (kdcore data check counts them)")
        return replace(joined, code=common[self.split[common // width] >= 0])

    def unused(self, joined: JoinedRows) -> Iterator[tuple[str, Sample]]:
        """Split and sample of every member of a split that has no row."""
        used = np.zeros(len(self.samples) + 1, bool)  # the last is for members that are not among the samples
        used[joined.recorded] = True
        for split, members in self.splits.samples.items():
            yield from ((split, members[number]) for number in np.flatnonzero(~used[self._members[split]]))

    def used(self, joined: JoinedRows) -> Splits:
        """The splits without the members that have no row."""
        return self.splits.without({sample.key for _, sample in self.unused(joined)})


def _labels(members: Sequence[Sample], names: int) -> NDArray[Any]:
    """The label of each of `members`, or its target of `names` numbers."""
    if not names:
        return np.fromiter((-1 if each.label is None else each.label for each in members), np.int64, len(members))
    unknown = (np.nan,) * names
    targets = [unknown if each.target is None else each.target for each in members]
    return np.array(targets, np.float32).reshape(len(members), names)


@dataclass(frozen=True)
class JoinedRows:
    """The rows of a table.

    Args:
        join: The samples.
        width: More than the largest number of a window.
        code: (N,) ``position * width + window`` of each row, in ascending order.
    """

    join: KeyJoin
    width: int
    code: Positions

    @property
    def recorded(self) -> Positions:
        """(N,) the position of the sample that each row was cut from."""
        return self.code // self.width

    @cached_property
    def keys(self) -> tuple[SampleKey, ...]:
        """The key of each row, with the number of its window."""
        rows = zip(self.recorded.tolist(), (self.code % self.width).tolist(), strict=True)
        keys = ((self.join.samples[position].key, window) for position, window in rows)
        return tuple(replace(key, window=window) if window else key for key, window in keys)

    @property
    def labels(self) -> Tensor:
        """(N,) int64, -1 where unknown; (N, names) float32 of other targets, NaN where unknown."""
        return torch.from_numpy(self.join.label[self.recorded])

    @property
    def weights(self) -> Tensor | None:
        """(N,) float32, the weights of the samples; None if all weigh 1."""
        weights = np.fromiter((each.weight for each in self.join.samples), np.float32, len(self.join.samples))
        return None if (weights == 1).all() else torch.from_numpy(weights[self.recorded])

    @property
    def by_split(self) -> dict[str, Tensor]:
        """Split → its rows."""
        split = self.join.split[self.recorded]
        return {name: torch.from_numpy(np.flatnonzero(split == each)) for each, name in enumerate(self.join.splits.samples)}

    def codes(self, column: Column, modality: str) -> Positions:
        """The codes of a column's rows, in ascending order."""
        return self.join.positions_with(modality)[column.recorded] * self.width + column.windows

    def present(self, column: Column, modality: str) -> NDArray[np.bool_]:
        """(N,) whether a column has each row."""
        return np.isin(self.code, self.codes(column, modality), assume_unique=True)

    def values_of(self, column: Column, modality: str, storage: Storage = Storage()) -> Tensor:  # noqa: B008 - frozen
        """Return a column's values row by row, (N, …), with its first one as a placeholder for missing ones.

        The result is the column's own tensor if its rows are all rows in order.

        Args:
            column: The column.
            modality: Its modality.
            storage: Where the result is kept.
        """
        codes = self.codes(column, modality)
        if not len(codes) or np.array_equal(codes, self.code):
            return column.values
        row = np.searchsorted(codes, self.code).clip(max=len(codes) - 1)
        rows = torch.from_numpy(np.where(codes[row] == self.code, row, 0))
        return storage.rows(column.values, rows)
