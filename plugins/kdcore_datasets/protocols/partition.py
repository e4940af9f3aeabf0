"""Functions shared by all protocols that split samples by the values of a key field."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kdcore import DataError, Sample

Value = int | str
"""A subject, view … in a recipe. ``1`` and ``"1"`` are equal, and both match ``"01"`` if there is no exact match."""


def natural(text: str) -> tuple[tuple[int, int | str], ...]:
    """Return a sort key that puts ``s2`` before ``s10``."""
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", text) if part)


def values_of(samples: Iterable[Sample], field: str) -> list[str]:
    """Return the values of a key field that occur, in natural order.

    Raises:
        DataError: If some or all samples do not have this field.
    """
    found = {getattr(sample.key, field) for sample in samples}
    if not found:
        raise DataError("there are no samples to split")
    if "" in found:
        every = "no sample states" if len(found) == 1 else "some samples do not state"
        raise DataError(f"this dataset cannot be split by {field}: {every} its {field}")
    return sorted(found, key=lambda value: (natural(value), value))


def matching(wanted: Iterable[Value], existing: Sequence[str], field: str) -> list[str]:
    """Return the names in the data that match the values in a recipe, without duplicates, in natural order.

    Raises:
        DataError: If a value does not occur. The message lists those that do.
    """
    found = [match(str(value), existing) for value in wanted]
    unknown = [str(value) for value, match in zip(wanted, found, strict=True) if match is None]
    if unknown:
        raise DataError(f"no samples with {field} {listed(unknown)} (available: {listed(existing)})")
    return [value for value in existing if value in found]


def match(value: str, existing: Sequence[str]) -> str | None:
    """Return the name in the data that matches a value in a recipe: the same text, or else the only equal number."""
    if value in existing:
        return value
    same_number = [each for each in existing if value.isdecimal() and each.isdecimal() and int(each) == int(value)]
    return same_number[0] if len(same_number) == 1 else None


def refuse_overlap(field: str, splits: Mapping[str, Sequence[str]]) -> None:
    """Check that splits do not share a value.

    Raises:
        DataError: If two splits do. The message names them and the value.
    """
    owner: dict[str, str] = {}
    for split, values in splits.items():
        for value in values:
            if value in owner:
                raise DataError(f"{field} {value} is listed for both {owner[value]} and {split}")
            owner[value] = split


def held_out(validation: int | tuple[Value, ...], train: Sequence[str], existing: Sequence[str], field: str) -> list[str]:
    """Return the validation values: the last ones of `train`, or those listed.

    Raises:
        DataError: If none would be left for training, or a value does not occur.
    """
    if not isinstance(validation, int):
        return matching(validation, existing, field)
    if not 0 <= validation < max(1, len(train)):
        raise DataError(f"cannot hold out {validation} of {len(train)} training {field}s ({listed(train)}) for validation")
    return list(train[len(train) - validation :])


def gather(
    samples: Iterable[Sample], split_of: Mapping[str, str], field: str, splits: Sequence[str]
) -> dict[str, tuple[Sample, ...]]:
    """Return samples by split, in an order that does not depend on the input order. Samples without a split are left out."""
    gathered: dict[str, list[Sample]] = {split: [] for split in splits}
    for sample in in_order(samples):
        split = split_of.get(getattr(sample.key, field))
        if split:
            gathered[split].append(sample)
    return {split: tuple(members) for split, members in gathered.items()}


def in_order(samples: Iterable[Sample]) -> list[Sample]:
    """Sort samples by key, with numbers in names compared as numbers."""
    samples = list(samples)
    keys = [sample.key for sample in samples]
    by_number, by_text = [], []
    for name in ("subject", "action", "trial", "view", "scene", "session"):
        values = [getattr(key, name) for key in keys]
        rank_of_text = _ranks(values)
        if len(rank_of_text) < 2:
            continue
        rank_of_number = _ranks(map(natural, rank_of_text))
        by_rank = np.array([rank_of_number[natural(text)] for text in rank_of_text])
        ranks = np.fromiter(map(rank_of_text.__getitem__, values), np.int64, len(values))
        by_number.append(by_rank[ranks])
        by_text.append(ranks)
    order = np.lexsort([[key.window for key in keys], *reversed(by_text), *reversed(by_number)])
    return [samples[number] for number in order.tolist()]


def _ranks(values: Iterable[Any]) -> dict[Any, int]:
    """Return the rank of each distinct value, in ascending order."""
    return {value: rank for rank, value in enumerate(sorted(set(values)))}


def refuse_empty(splits: Mapping[str, Sequence[Sample]], rule: str, may_be_empty: Sequence[str] = ("validation",)) -> None:
    """Check that all splits except optional ones have samples.

    Raises:
        DataError: If a split is empty.
    """
    for split, members in splits.items():
        if not members and split not in may_be_empty:
            raise DataError(f"the {split} split is empty ({rule})")


def listed(values: Sequence[str]) -> str:
    """Join values as ``1, 2 and 3``."""
    return " and ".join(filter(None, [", ".join(values[:-1]), *values[-1:]]))


def both_sides(
    existing: list[str], train: Sequence[Value], test: Sequence[Value], field: str, default_train: list[str]
) -> tuple[list[str], list[str]]:
    """Return training and test values. A side that is not listed gets all other values.

    Without any list, the values ``train`` and ``test`` are used for the split of the same name, if they exist.
    """
    if not train and not test:
        named = [value for value in existing if value.casefold() in ("train", "test")]
        default_train = default_train if len(named) < 2 else [value for value in existing if value.casefold() != "test"]
        return default_train, [value for value in existing if value not in default_train]
    chosen_train, chosen_test = matching(train, existing, field), matching(test, existing, field)
    return (
        chosen_train or [value for value in existing if value not in chosen_test],
        chosen_test or [value for value in existing if value not in chosen_train],
    )


def described(by: str, splits: Mapping[str, Sequence[str]], existing: Sequence[str]) -> str:
    """Return the rule as a sentence: the values in each split, and those in none."""
    parts = [f"{split} {listed(values)}" for split, values in splits.items() if values]
    unused = [value for value in existing if not any(value in values for values in splits.values())]
    return f"{by}: {'; '.join(parts)}" + (f"; left out {listed(unused)}" if unused else "")
