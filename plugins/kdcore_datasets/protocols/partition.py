"""Dividing samples by the values of one field of their keys, shared by all protocols."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kdcore import DataError, Sample

Value = int | str
"""A subject, view … as a recipe writes it: ``1`` and ``"1"`` are the same, and both match ``"01"`` if nothing fits better."""


def natural(text: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key that puts ``s2`` before ``s10``."""
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", text) if part)


def values_of(samples: Iterable[Sample], field: str) -> list[str]:
    """The values of a key field that occur, in natural order.

    Raises:
        DataError: If the samples do not state this field at all, or only some do.
    """
    found = {getattr(sample.key, field) for sample in samples}
    if not found:
        raise DataError("there are no samples to split")
    if "" in found:
        every = "no sample states" if len(found) == 1 else "some samples do not state"
        raise DataError(f"this dataset cannot be split by {field}: {every} its {field}")
    return sorted(found, key=lambda value: (natural(value), value))


def matching(wanted: Iterable[Value], existing: Sequence[str], field: str) -> list[str]:
    """The names in the data of a recipe's values, without repetitions, in natural order.

    Raises:
        DataError: If one does not exist; those that do are listed.
    """
    found = [match(str(value), existing) for value in wanted]
    unknown = [str(value) for value, match in zip(wanted, found, strict=True) if match is None]
    if unknown:
        raise DataError(f"no samples of {field} {listed(unknown)}; there are {listed(existing)}")
    return [value for value in existing if value in found]


def match(value: str, existing: Sequence[str]) -> str | None:
    """The name in the data that a recipe's value means: the same text, or else the only one that is the same number."""
    if value in existing:
        return value
    same_number = [each for each in existing if value.isdecimal() and each.isdecimal() and int(each) == int(value)]
    return same_number[0] if len(same_number) == 1 else None


def refuse_overlap(field: str, splits: Mapping[str, Sequence[str]]) -> None:
    """Splits must not share a value.

    Raises:
        DataError: If two do, naming value and splits.
    """
    owner: dict[str, str] = {}
    for split, values in splits.items():
        for value in values:
            if value in owner:
                raise DataError(f"{field} {value} is listed for both {owner[value]} and {split}")
            owner[value] = split


def held_out(validation: int | tuple[Value, ...], train: Sequence[str], existing: Sequence[str], field: str) -> list[str]:
    """The values to validate on: the last so many of `train`, or those listed.

    Raises:
        DataError: If none would be left to train on, or one does not exist.
    """
    if not isinstance(validation, int):
        return matching(validation, existing, field)
    if not 0 <= validation < max(1, len(train)):
        raise DataError(f"cannot hold out {validation} of {len(train)} training {field}s ({listed(train)}) for validation")
    return list(train[len(train) - validation :])


def gather(
    samples: Iterable[Sample], split_of: Mapping[str, str], field: str, splits: Sequence[str]
) -> dict[str, tuple[Sample, ...]]:
    """Samples by split, in an order that does not depend on theirs; those whose value has no split are left out."""
    gathered: dict[str, list[Sample]] = {split: [] for split in splits}
    for sample in in_order(samples):
        split = split_of.get(getattr(sample.key, field))
        if split:
            gathered[split].append(sample)
    return {split: tuple(members) for split, members in gathered.items()}


def in_order(samples: Iterable[Sample]) -> list[Sample]:
    """Samples sorted by key, numbers within names by their size."""

    samples = list(samples)
    by_number, by_text = [], []
    for name in ("subject", "action", "trial", "view", "scene", "session"):
        values = [getattr(sample.key, name) for sample in samples]
        numbers = {value: natural(value) for value in set(values)}
        if len(numbers) < 2:
            continue
        by_number.append(_ranks([numbers[value] for value in values]))
        by_text.append(_ranks(values))
    order = np.lexsort([[sample.key.window for sample in samples], *reversed(by_text), *reversed(by_number)])
    return [samples[number] for number in order.tolist()]


def _ranks(values: Sequence[Any]) -> np.ndarray:
    """The place of each value among all that occur, which compares as the values do."""
    place = {value: number for number, value in enumerate(sorted(set(values)))}
    return np.fromiter((place[value] for value in values), np.int64, len(values))


def refuse_empty(splits: Mapping[str, Sequence[Sample]], rule: str, may_be_empty: Sequence[str] = ("validation",)) -> None:
    """Every split but the optional ones must have samples.

    Raises:
        DataError: If one has none.
    """
    for split, members in splits.items():
        if not members and split not in may_be_empty:
            raise DataError(f"the {split} split is empty ({rule})")


def listed(values: Sequence[str]) -> str:
    """``1, 2 and 3``."""
    return " and ".join(filter(None, [", ".join(values[:-1]), *values[-1:]]))


def both_sides(
    existing: list[str], train: Sequence[Value], test: Sequence[Value], field: str, default_train: list[str]
) -> tuple[list[str], list[str]]:
    """Training and test values; a side that is not listed gets all the others.

    Without any list, values called ``train`` and ``test`` are what they are called.
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
    """The rule in a sentence: which values are in which split, and which in none."""
    said = [f"{split} {listed(values)}" for split, values in splits.items() if values]
    unused = [value for value in existing if not any(value in values for values in splits.values())]
    return f"{by}: {'; '.join(said)}" + (f"; left out {listed(unused)}" if unused else "")
