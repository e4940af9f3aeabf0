"""Labels and values of arrays in memory: one class per sample, any number of labels, or numbers to estimate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdcore.contracts.target import Target
from kdcore.errors import DataError
from kdcore.suggestions import did_you_mean


class ArrayTargets:
    """The labels or values of a `kdcore.ArrayDataset`, whose arguments these are.

    Args:
        labels: Labels, or None.
        values: Regression targets, or None.
        units: Value → its unit.
        classes: Class names in order, or None.

    Attributes:
        given: Argument → the labels or values in it, in one of the forms that have an entry per sample.
        target: Kind of the labels.

    Raises:
        DataError: If there are both labels and values, or units without values.
    """

    def __init__(self, labels: Any, values: Any, units: Mapping[str, str] | None, classes: Sequence[str] | None):
        if labels is not None and values is not None:
            raise DataError("give labels, or values to estimate, not both")
        if units and values is None:
            raise DataError("units are those of values; give values=")
        self.classes = None if classes is None else tuple(map(as_text, classes))
        if self.classes is not None and len(set(self.classes)) < len(self.classes):
            raise DataError("classes: two classes have the same name")
        if values is None and hasattr(labels, "columns"):
            labels = self._by_column(labels)
        self.given: dict[str, Any] = {"labels": labels} if values is None else _columns(values)
        self.several = values is None and _are_several(labels)
        self.names = self._value_names(values) if values is not None else ()
        kind = "values" if values is not None else "labels" if self.several else "classes"
        self.target = Target(kind, self._units(units or {}))

    def _by_column(self, table: Any) -> Any:
        """A DataFrame that has a column for each label, with its columns in the order of `classes`."""
        names = tuple(str(name) for name in table.columns)
        if len(set(names)) < len(names):
            raise DataError("labels: two columns have the same name")
        self.classes = names if self.classes is None else self.classes
        if sorted(names) != sorted(self.classes):
            raise DataError(f"labels: the columns are {', '.join(names)}, and classes names {', '.join(self.classes)}")
        if not hasattr(table, "iloc"):  # not pandas
            return np.array([list(table[name]) for name in self.classes], dtype=object).T
        return table.astype(object).where(table.notna(), None).iloc[:, [names.index(name) for name in self.classes]]

    def read(self, lists: Mapping[str, list[Any] | None], count: int) -> tuple[tuple[str, ...], list[Any]]:
        """Return the names of the classes, labels or values, and the class index or numbers of each sample.

        Args:
            lists: Like `given`, as lists with one entry per sample.
            count: Number of samples.

        Raises:
            DataError: If a label or value is unfit.
        """
        if self.target.kind == "values":
            return self.names, self._values(lists)
        labels = lists["labels"] or [None] * count
        return self._several(labels) if self.several else _labelled(labels, self.classes)

    def _value_names(self, values: Any) -> tuple[str, ...]:
        if not _by_name(values):
            width = _width(values)
            names = self.classes or (("value",) if width == 1 else tuple(f"value {n}" for n in range(1, width + 1)))
            if len(names) != width:
                raise DataError(f"classes names {len(names)} values, but each sample has {width}")
            return names
        names = tuple(str(name) for name in _named(values))
        if self.classes is not None and self.classes != names:
            raise DataError("values are named already; leave out classes")
        return names

    def _units(self, units: Mapping[str, str]) -> tuple[str, ...]:
        for name in set(units) - set(self.names):
            raise DataError(f"units: there is no value {name!r} ({did_you_mean(name, self.names)})")
        for name, unit in units.items():
            if not isinstance(unit, str):
                raise DataError(f"units: that of {name!r} must be text, not {unit!r}")
        return tuple(units.get(name, "") for name in self.names) if units else ()

    def _values(self, lists: Mapping[str, list[Any] | None]) -> list[tuple[float, ...] | None]:
        columns = [each or [] for each in lists.values()]
        rows = [tuple(row) for row in zip(*columns, strict=True)]
        if len(columns) == 1 and rows and isinstance(rows[0][0], list):
            rows = [tuple(row[0]) for row in rows]
        return [self._row(row, number, "values") for number, row in enumerate(rows)]

    def _row(self, row: Sequence[Any], number: int, what: str) -> tuple[float, ...] | None:
        """The numbers of a sample; None if all are missing."""
        try:
            numbers = tuple(float("nan") if each is None else float(each) for each in row)
        except (TypeError, ValueError):
            raise DataError(f"{what}: those of sample {number} are not numbers: {list(row)!r}") from None
        return None if all(each != each for each in numbers) else numbers

    def _several(self, rows: Sequence[Any]) -> tuple[tuple[str, ...], list[tuple[float, ...] | None]]:
        entries = [each for row in rows if row is not None for each in row]
        if not entries or any(isinstance(each, str) for each in entries):
            occurring = sorted(set(map(as_text, entries)))
            names = occurring if self.classes is None else self.classes
            _refuse_unknown(occurring, names, "labels")
            sets = [None if row is None else set(map(as_text, row)) for row in rows]
            return tuple(names), [None if each is None else tuple(float(name in each) for name in names) for each in sets]
        width = max(len(row) for row in rows if row is not None)
        names = self.classes or tuple(f"label {n}" for n in range(1, width + 1))
        numbers = [None if row is None else self._row(row, number, "labels") for number, row in enumerate(rows)]
        for number, row in enumerate(numbers):
            if row is not None and (len(row) != len(names) or not {each for each in row if each == each} <= {0.0, 1.0}):
                what = f"must have {len(names)} numbers, each 0 or 1, or NaN where it is not known"
                raise DataError(f"labels: sample {number} {what}, not {list(row)!r}")
        return tuple(names), numbers


def _refuse_unknown(names: Sequence[str], known: Sequence[str], what: str) -> None:
    for name in names:
        if name not in known:
            raise DataError(f"labels: {name!r} is not one of the {what} ({did_you_mean(name, known)})")


def as_text(value: Any) -> str:
    """A name as text; bytes, as HDF5 and NumPy have them, are decoded.

    Raises:
        DataError: If bytes are not UTF-8.
    """
    try:
        return value.decode("utf-8") if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError:
        raise DataError(f"the name {value!r} is not UTF-8; decode it to text first") from None


def _by_name(values: Any) -> bool:
    return isinstance(values, Mapping) or hasattr(values, "columns")


def _named(values: Any) -> Mapping[Any, Any]:
    return values if isinstance(values, Mapping) else {name: values[name] for name in values.columns}


def _columns(values: Any) -> dict[str, Any]:
    return {f"values[{str(name)!r}]": each for name, each in _named(values).items()} if _by_name(values) else {"values": values}


def _width(values: Any) -> int:
    """Numbers that each sample has."""
    if isinstance(values, str):
        return 1  # a column of tables
    shape = np.shape(values.detach().cpu() if hasattr(values, "detach") else values)
    return shape[1] if len(shape) == 2 else 1


def _are_several(labels: Any) -> bool:
    """True for an array (samples, labels), or where samples have lists of names."""
    if hasattr(labels, "ndim") and not isinstance(labels, str):
        return labels.ndim == 2
    every = labels.values() if isinstance(labels, Mapping) else labels if isinstance(labels, list | tuple) else ()
    return any(isinstance(each, list | tuple | set | frozenset | np.ndarray) for each in every)


def _labelled(values: list[Any], classes: Sequence[str] | None) -> tuple[tuple[str, ...], list[int | None]]:
    """Class names, and the position of each sample's label among them."""
    labels = [None if _is_missing(value) else _whole(value) for value in values]
    occurring = {label for label in labels if label is not None}
    are_numbers = all(isinstance(label, int) for label in occurring)
    if any(isinstance(value, bool | np.bool_) for value in values) and any(isinstance(label, int) for label in occurring):
        raise DataError("labels: some are True or False and others are numbers; use one kind")
    if not are_numbers:
        labels, occurring = [label if label is None else str(label) for label in labels], set(map(str, occurring))
    known: Sequence[Any] = sorted(occurring) if classes is None else range(len(classes)) if are_numbers else classes
    if unknown := sorted(occurring - set(known)):
        if are_numbers:
            raise DataError(f"labels: {unknown[0]} is no position among the {len(known)} classes, which count from 0")
        _refuse_unknown(unknown, known, "classes")
    position: dict[Any, int] = {label: number for number, label in enumerate(known)}
    names = tuple(map(str, known)) if classes is None else tuple(classes)
    return names, [None if label is None else position[label] for label in labels]


def _is_missing(value: Any) -> bool:
    return value is None or value != value or (not isinstance(value, str) and value == -1)


def _whole(value: Any) -> Any:
    """A whole number as an int, anything else as it is."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bytes):
        return as_text(value)
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        if not value.is_integer():
            raise DataError(f"labels: {value!r} is neither text nor an integer")
        return int(value)
    if isinstance(value, int) and value < 0:
        raise DataError(f"labels: {value} is negative; -1 is an unlabelled sample")
    return value
