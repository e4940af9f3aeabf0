"""Data frames in long format: a row for each time step of each sample, with the sample's name in a column."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kdcore.contracts.modality import Modality
from kdcore.errors import DataError
from kdcore.suggestions import did_you_mean

TIME = "time"
"""Column of instants, in seconds."""


def is_table(values: Any) -> bool:
    """True for a data frame."""
    return hasattr(values, "columns") and hasattr(values, "to_numpy")


def recordings_of_table(
    name: str, table: Any, spec: Modality, sample: str, others: Collection[str]
) -> tuple[dict[Hashable, tuple[np.ndarray, np.ndarray | None]], tuple[str, ...]]:
    """Return (values, times or None) by sample, in the order of the first rows, and the names of the channels' columns.

    The channels' columns are named like the modality's channels if all of these exist; otherwise they are all columns not used
    otherwise, in order. Recordings with joints have a column for each joint and channel, joint by joint.

    Args:
        name: Name of the modality.
        table: The data frame.
        spec: Specification of the modality.
        sample: Column that names the sample.
        others: Columns that contain labels and other values of samples.

    Raises:
        DataError: If a column is missing, holds no numbers, or their number does not fit.
    """
    columns = [str(each) for each in table.columns]
    if len(set(columns)) < len(columns):
        raise DataError(f"{name}: two columns of the table have the same name")
    if sample not in columns:
        raise DataError(f"{name}: the table has no column {sample!r} that names the sample ({did_you_mean(sample, columns)})")
    chosen = _channels(name, columns, spec, {sample, TIME, *others})
    values = np.asarray(table[chosen].to_numpy())
    if values.dtype.kind not in "fiub":
        wrong = next(each for each in chosen if np.asarray(table[each].to_numpy()).dtype.kind not in "fiub")
        raise DataError(f"{name}: the column {wrong!r} holds no numbers")
    times = instants(name, table[TIME], TIME) if TIME in columns else None
    inner = _inner_shape(name, spec, len(chosen))
    rows: dict[Hashable, list[int]] = {}
    for row, each in enumerate(plain_values(table[sample])):
        if each is None or each != each:
            raise DataError(f"{name}: row {row} of the table names no sample in {sample!r}")
        rows.setdefault(each, []).append(row)
    if times is None:
        _refuse_shuffled(name, table, rows)
    recordings = {
        each: (values[of].reshape(len(of), *inner), None if times is None else times[of]) for each, of in rows.items()
    }
    return recordings, tuple(chosen)


def instants(name: str, column: Any, called: str) -> np.ndarray:
    """Return the times in a data frame's column in seconds, (rows,); dates count from 1970, durations from 0.

    Args:
        name: Name of the modality.
        column: The column.
        called: Its name.

    Raises:
        DataError: If an entry is missing or is not a time.
    """
    kind = getattr(column.dtype, "kind", "O")
    if kind == "O" and hasattr(column, "infer_objects"):  # pandas may store dates and durations as objects
        column = column.infer_objects()
        kind = getattr(column.dtype, "kind", "O")
    if kind in "Mm":
        whole = column.to_numpy(dtype="datetime64[ns]" if kind == "M" else "timedelta64[ns]")
        times = np.where(np.isnat(whole), np.nan, whole.astype(np.int64) / 1e9)
    else:
        try:
            times = np.asarray(column.to_numpy(), dtype=np.float64)
        except (TypeError, ValueError):
            raise DataError(f"{name}: the column {called!r} holds neither seconds nor dates") from None
    if not np.isfinite(times).all():
        raise DataError(f"{name}: row {int((~np.isfinite(times)).argmax())} of the table has no {called}")
    return times


def _refuse_shuffled(name: str, table: Any, rows: Mapping[Hashable, Sequence[int]]) -> None:
    """Refuse a table without times whose index shows that the rows of a sample are not in order."""
    for each, of in rows.items():
        if goes_back(getattr(table, "index", None), of):
            raise DataError(
                f"{name}, sample {each!r}: the table has no column {TIME!r}, and its index goes back within the sample; "
                "sort the rows by time, then call reset_index"
            )


def goes_back(index: Any, rows: Sequence[int] | slice = slice(None)) -> bool:
    """Return True if some numbers, dates or durations in a data frame's index are not in order.

    Args:
        index: Index of the data frame; None if it has none.
        rows: Rows to compare.
    """
    kind = getattr(getattr(index, "dtype", None), "kind", "O")
    return kind in "iufMm" and not index[rows].dropna().is_monotonic_increasing


def plain_values(column: Any) -> list[Any]:
    """Return the values of a data frame's column or of an array of pandas, such as `Categorical`.

    Missing values of objects and nullable types are None.
    """
    if hasattr(column, "notna") and (not isinstance(column.dtype, np.dtype) or column.dtype == object):
        pairs = zip(column.astype(object).tolist(), column.notna().tolist(), strict=True)
        return [value if there else None for value, there in pairs]
    return column.to_numpy().tolist()


def one_for_each(pairs: Iterable[tuple[Hashable, Any]], what: str) -> dict[Hashable, Any]:
    """Return the common value of all rows of a sample, by sample.

    Args:
        pairs: The sample and the value of each row.
        what: Description of the values, for the message.

    Raises:
        DataError: If a sample has two values.
    """
    values: dict[Hashable, Any] = {}
    for each, value in pairs:
        first = values.setdefault(each, value)
        if not _same(first, value):
            raise DataError(f"{what} says both {first!r} and {value!r} for the sample {each!r}")
    return values


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other or (one != one and other != other))


def values_of_table(tables: Sequence[Any], sample: str, column: str) -> dict[Hashable, Any]:
    """Return the common value of a column in all rows of a sample, by sample, from the tables that have the column.

    Raises:
        DataError: If no table has the column, or a sample has two values.
    """
    containing = [table for table in tables if column in [str(each) for each in table.columns]]
    if not containing:
        known = sorted({str(each) for table in tables for each in table.columns})
        raise DataError(f"no table has a column {column!r} ({did_you_mean(column, known)})")
    pairs = (
        pair for table in containing for pair in zip(plain_values(table[sample]), plain_values(table[column]), strict=True)
    )
    return one_for_each(pairs, f"the column {column!r}")


def _channels(name: str, columns: Sequence[str], spec: Modality, others: Collection[str]) -> list[str]:
    chosen = [each for each in columns if each not in others]
    if spec.channels and "joint" not in spec.axes:
        if all(each in columns for each in spec.channels):
            return list(spec.channels)
        channels, listed = ", ".join(spec.channels), ", ".join(chosen) or "none"
        if len(chosen) == len(spec.channels):
            raise DataError(f"{name}: cannot assign the columns {listed} to the channels {channels}; rename the columns")
        raise DataError(
            f"{name} has the channels {channels}, but the table has the columns {listed}; name its columns like the channels"
        )
    if not chosen:
        raise DataError(f"{name}: the table has no column of values")
    return chosen


def _inner_shape(name: str, spec: Modality, columns: int) -> tuple[int, ...]:
    """Return the shape of a row: (channels,), or (joints, channels) if the modality has joints."""
    axes = [axis for axis in spec.axes if axis not in ("time", "person")]
    if axes == ["channel"]:
        return (columns,)
    if axes == ["joint", "channel"] and spec.channels:
        if columns % len(spec.channels):
            raise DataError(f"{name}: {columns} columns are not {len(spec.channels)} for each joint")
        return columns // len(spec.channels), len(spec.channels)
    raise DataError(f"{name}: a table cannot hold recordings with the axes {', '.join(spec.axes)}; give a list of arrays")
