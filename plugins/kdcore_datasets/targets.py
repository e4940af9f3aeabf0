"""Targets that are declared in a recipe: names, units, and parsing of their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kdcore import Target, TargetKind

NOTHING = "none"
"""Action in the key of a sample that has none of several labels."""

UNKNOWN = "?"
"""Mark of an unknown label or value in text."""

KEEP = "to keep samples without a label, set unlabelled: keep and data.labels: partial"


def declared_target(
    dataset: str,
    kind: TargetKind,
    names: Sequence[str],
    units: Mapping[str, str] | None,
    renamed: Mapping[str, str] | None = None,
) -> Target:
    """Return the target that a recipe declares.

    Args:
        dataset: Name of the dataset, for messages.
        kind: Kind of target.
        names: Names of the classes, labels or values.
        units: Units of values, by name.
        renamed: Class names by label in files; for classes only.

    Raises:
        ValueError: If labels or values have no names, units do not belong to values, or labels are renamed.
    """
    if kind != "classes" and renamed:
        raise ValueError(f"{dataset}: 'names' is for classes, not for target {kind!r}; rename them in 'classes'")
    if kind != "classes" and not names:
        raise ValueError(f"{dataset}: target {kind!r} requires 'classes', the names of the {kind}")
    for name in names if kind == "labels" else ():
        if name == NOTHING or not name.strip() or ";" in name or name.startswith(UNKNOWN):
            raise ValueError(
                f"{dataset}: {name!r} cannot be the name of a label; {NOTHING!r}, ';' and a leading {UNKNOWN!r} have a meaning "
                "of their own"
            )
    for name in units or ():
        if kind != "values" or name not in names:
            raise ValueError(f"{dataset}: value_units: there is no value {name!r}")
    return Target(kind, tuple((units or {}).get(name, "") for name in names) if units else ())


def numbers_of(rows: np.ndarray) -> list[tuple[float, ...] | None]:
    """Return the numbers of each sample from rows (samples, names), with NaN if unknown; None for a row of NaN."""
    return [None if np.isnan(row).all() else tuple(row.tolist()) for row in rows]


def read_numbers_of(text: str, names: Sequence[str], target: Target) -> tuple[float, ...] | None:
    """Parse labels or values, separated by semicolons. The result is NaN if unknown, and None if all are unknown.

    For labels, ``?talk`` means that ``talk`` is unknown, and ``?`` that all labels not in the text are unknown. For values,
    ``?``, ``nan`` and an empty part mean that the value is unknown.

    Raises:
        ValueError: If a label is not in `names` or is repeated, or a value is not a number.
    """
    parts = [part.strip() for part in text.split(";")]
    found = _read_values(text, parts, names) if target.kind == "values" else _read_labels(text, parts, names)
    return None if all(each != each for each in found) else found


def _read_values(text: str, parts: list[str], names: Sequence[str]) -> tuple[float, ...]:
    if len(parts) == len(names) + 1 and not parts[-1]:  # trailing semicolon
        parts = parts[:-1]
    if len(parts) != len(names) and parts != [UNKNOWN] and any(parts):
        raise ValueError(f"{text!r} is {len(parts)} values, and {len(names)} are expected")
    try:
        found = [np.nan if part in ("", UNKNOWN) else float(part) for part in parts]
    except ValueError:
        raise ValueError(f"{text!r} is not a number for each of {', '.join(names)}") from None
    if np.isinf(found).any():
        raise ValueError(f"{text!r} is not finite")
    return tuple(found)


def _read_labels(text: str, parts: list[str], names: Sequence[str]) -> tuple[float, ...]:
    parts = [part for part in parts if part]
    if parts == [NOTHING]:
        return (0.0,) * len(names)
    present = {part: 1.0 for part in parts if not part.startswith(UNKNOWN)}
    unknown = {part.removeprefix(UNKNOWN).strip() for part in parts if part.startswith(UNKNOWN)}
    for name in (*present, *(unknown - {""})):
        if name not in names:
            raise ValueError(f"label {name!r} is not one of {', '.join(names)}")
        if name in present and name in unknown:
            raise ValueError(f"{text!r} contains {name!r} both as present and as unknown")
    rest = np.nan if "" in unknown or not parts else 0.0
    return tuple(np.nan if name in unknown else present.get(name, rest) for name in names)
