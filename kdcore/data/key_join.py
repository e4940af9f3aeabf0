"""Join of the modalities' rows by sample, on integer positions instead of keys, which stays fast at 100,000 samples."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdcore.contracts.dataset import Sample, SampleKey
from kdcore.contracts.protocol import Splits
from kdcore.data.data_cache import Column, window_keys
from kdcore.data.mapped import rows_of
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
            found = self._members[split]
            labels = _labels(members, names)
            self.split[found[found >= 0]] = number
            self.label[found[found >= 0]] = labels[found >= 0]
        self._having: dict[str, NDArray[np.bool_]] = {}

    def _has(self, modality: str) -> NDArray[np.bool_]:
        """(len(samples),) which samples have a modality."""
        if modality not in self._having:
            self._having[modality] = np.fromiter((modality in each.sources for each in self.samples), bool, len(self.samples))
        return self._having[modality]

    def having(self, modality: str) -> Positions:
        """The positions of the samples that have a modality."""
        return np.flatnonzero(self._has(modality))

    def rows(self, columns: Sequence[Column], modalities: Sequence[str]) -> JoinedRows:
        """The rows that the columns of all modalities of a sample have, in the samples' order, without those in no split.

        Raises:
            DataError: If there are none.
        """
        width = 1 + max((int(column.windows.max(initial=0)) for column in columns), default=0)
        joined = JoinedRows(self, width, np.empty(0, np.int64))
        found = [joined.codes(column, name) for column, name in zip(columns, modalities, strict=True)]
        common = np.unique(np.concatenate(found))
        for codes, modality in zip(found, modalities, strict=True):
            common = common[np.isin(common, codes, assume_unique=True) | ~self._has(modality)[common // width]]
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
        gone = {sample.key for _, sample in self.unused(joined)}
        return self.splits.without(gone) if gone else self.splits


def _labels(members: Sequence[Sample], names: int) -> NDArray[Any]:
    """The label of each of `members`, or its target of `names` numbers."""
    if not names:
        return np.fromiter((-1 if each.label is None else each.label for each in members), np.int64, len(members))
    blank = (np.nan,) * names
    found = [blank if each.target is None else each.target for each in members]
    return np.array(found, np.float32).reshape(len(members), names)


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
        return window_keys(self.join.samples, self.recorded, self.code % self.width)

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
        return self.join.having(modality)[column.recorded] * self.width + column.windows

    def present(self, column: Column, modality: str) -> NDArray[np.bool_]:
        """(N,) whether a column has each row."""
        return np.isin(self.code, self.codes(column, modality), assume_unique=True)

    def values_of(self, column: Column, modality: str, limit: int = sys.maxsize, folder: Path | None = None) -> Tensor:
        """(N, …) a column's values row by row; its first one stands in where there is none.

        They are the column's own tensor where nothing is to be moved.

        Args:
            column: The column.
            modality: Its modality.
            limit: Bytes that they may take in memory.
            folder: Where they are kept if they take more.
        """
        codes = self.codes(column, modality)
        if not len(codes) or np.array_equal(codes, self.code):
            return column.values
        row = np.searchsorted(codes, self.code).clip(max=len(codes) - 1)
        rows = torch.from_numpy(np.where(codes[row] == self.code, row, 0))
        return rows_of(column.values, rows, limit, folder)
