"""Targets of datasets that are described in a recipe: their names and units, and their numbers as files have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kdcore import DataError, Target, TargetKind

NOTHING = "none"
"""Action, in a sample's key, of a sample that has none of several labels."""


def declared_target(
    dataset: str,
    kind: TargetKind,
    names: Sequence[str],
    units: Mapping[str, str] | None,
    renamed: Mapping[str, str] | None = None,
) -> Target:
    """The target that a recipe declares.

    Args:
        dataset: Its name, for messages.
        kind: Kind of target.
        names: Names of the classes, labels or values.
        units: Value → its unit.
        renamed: Text of a label in files → class name, for classes alone.

    Raises:
        ValueError: If labels or values have no names, units are of something else, or labels are renamed.
    """
    if kind != "classes" and renamed:
        raise ValueError(f"{dataset}: 'names' is for classes, not for target {kind!r}; rename them in 'classes'")
    if kind != "classes" and not names:
        raise ValueError(f"{dataset}: target {kind!r} requires 'classes', the names of the {kind}")
    for name in names if kind == "labels" else ():
        if name == NOTHING or not name.strip() or ";" in name:
            raise ValueError(
                f"{dataset}: {name!r} cannot be the name of a label; {NOTHING!r} and ';' have a meaning of their own"
            )
    for name in units or ():
        if kind != "values" or name not in names:
            raise ValueError(f"{dataset}: value_units: there is no value {name!r}")
    return Target(kind, tuple((units or {}).get(name, "") for name in names) if units else ())


def numbers_of(rows: np.ndarray, where: str, target: Target) -> list[tuple[float, ...] | None]:
    """The numbers of each sample from rows (samples, names); None for a row of NaN.

    Raises:
        DataError: If a sample has some values and lacks others.
    """
    missing = np.isnan(rows)
    partly = missing.any(axis=1) & ~missing.all(axis=1)
    if partly.any() and target.kind == "values":
        raise DataError(f"{where}: row {int(partly.argmax())} has some values and lacks others")
    return [None if np.isnan(row).all() else tuple(row.tolist()) for row in rows]


def read_numbers_of(text: str, names: Sequence[str], target: Target) -> tuple[float, ...]:
    """The numbers that a text of labels or values, separated by semicolons, stands for.

    Raises:
        ValueError: If a label is not one of `names`, or a value is no number.
    """
    parts = [part.strip() for part in text.split(";") if part.strip()]
    if target.kind == "values":
        if len(parts) != len(names):
            raise ValueError(f"{text!r} is {len(parts)} values, and {len(names)} are expected")
        try:
            return tuple(map(float, parts))
        except ValueError:
            raise ValueError(f"{text!r} is not a number for each of {', '.join(names)}") from None
    parts = [] if parts == [NOTHING] and NOTHING not in names else parts
    for unknown in (part for part in parts if part not in names):
        raise ValueError(f"label {unknown!r} is not one of {', '.join(names)}")
    return tuple(float(name in parts) for name in names)
