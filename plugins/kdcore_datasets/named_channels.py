"""Selection of the columns of a table that contain the channels of a modality.

Columns are assigned to channels by name, unit and number of columns. Ambiguous tables are rejected, since a wrong column or
unit would lead to wrong predictions with high confidence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdcore import INTERRUPTED, DataError, Modality, Signal, conversion, largest_gap, same_rate, warn
from kdcore_datasets.modalities import SECONDS

TIME_NAMES = ("time", "timestamp", "times", "t")
STEADY = 8
"""Minimum number of rows for an unnamed first column with equal steps to count as time stamps."""


@dataclass(frozen=True)
class Columns:
    """The columns of a table that contain the channels of a modality.

    Args:
        numbers: Column indices in the order of the channels.
        factors: Factor to the unit of the modality for each channel.
        time: Index of the column with time stamps, if any.
        unused: Names of the other columns.
    """

    numbers: tuple[int, ...]
    factors: tuple[float, ...]
    time: int | None = None
    unused: tuple[str, ...] = ()

    @property
    def wanted(self) -> list[int]:
        """Indices of the columns to read: the channels, then the time if there is one."""
        return [*self.numbers, *([] if self.time is None else [self.time])]


def choose_columns(names: Sequence[str], width: int, modality: Modality, units: str = "", channels: int = 0) -> Columns:
    """Select the columns that contain the channels of `modality`.

    A column is channel ``x`` of an accelerometer if it is called ``x``, ``acc_x``, ``ax``, ``x [g]`` or
    ``accelerometer-x (m/s^2)``: the channel's name, alone or with the beginning of the modality's name or placement.

    Args:
        names: Column names; empty if the table has none.
        width: Number of columns.
        modality: Modality of the recording.
        units: Unit of columns whose names do not contain one. Default: the unit of the modality.
        channels: Number of channels, if `modality` does not name them.

    Raises:
        DataError: If the columns do not match the modality, or the choice is ambiguous.
    """
    if set(modality.axes) != {"time", "channel"}:
        raise DataError(f"{modality.name} has axes {', '.join(modality.axes)}, which a table cannot represent")
    expected = len(modality.channels) or channels
    if not names:
        if expected and width != expected:
            named = f" ({', '.join(modality.channels)})" if modality.channels else ""
            raise DataError(
                f"the table has {width} columns without names, but {modality.name} has {expected} channels{named}; "
                "name the columns in the first line"
            )
        return Columns(tuple(range(width)), (factor_of(units, modality),) * width)
    parsed = [_split_unit(name) for name in names]
    time = next((number for number, (name, _) in enumerate(parsed) if is_time(name)), None)
    if modality.channels:
        numbers = [_column_of(channel, names, parsed, modality) for channel in modality.channels]
    else:
        numbers = [number for number in range(len(names)) if number != time]
        if channels and len(numbers) != channels:
            raise DataError(f"the table has {len(numbers)} columns of values ({', '.join(names)}), not {channels}")
    factors = tuple(_factor(parsed[number][1], names[number], units, modality) for number in numbers)
    unused = tuple(names[number] for number in range(len(names)) if number not in (*numbers, time))
    return Columns(tuple(numbers), factors, time if time not in numbers else None, unused)


def note_unused(columns: Columns) -> None:
    """Warn about columns that are not used."""
    if columns.unused:
        warn(f"columns not used: {', '.join(columns.unused)}")


def _column_of(channel: str, names: Sequence[str], parsed: Sequence[tuple[str, str]], modality: Modality) -> int:
    words = {part for text in (modality.name, modality.placement) for part in re.split(r"[^a-z0-9]+", text.lower()) if part}
    matches = [number for number, (name, _) in enumerate(parsed) if _is_channel(name, channel, words)]
    if not matches:
        raise DataError(
            f"no column for channel {channel!r} of {modality.name} (columns: {', '.join(names)}); "
            f"name them {', '.join(modality.channels)} or {', '.join(f'{modality.name}_{each}' for each in modality.channels)}"
        )
    if len(matches) > 1:
        several = " and ".join(repr(names[number]) for number in matches)
        raise DataError(f"columns {several} could each be channel {channel!r} of {modality.name}")
    return matches[0]


def _is_channel(name: str, channel: str, words: set[str]) -> bool:
    if name.lower() == channel.lower():
        return True
    tokens = [each.lower() for each in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+", name)]
    if len(tokens) == 1 and tokens[0].endswith(channel.lower()) and len(channel) == 1:
        tokens = [tokens[0].removesuffix(channel.lower()), channel.lower()]
    last = channel.lower()
    rest = tokens[:-1] if tokens[-1:] == [last] else tokens[1:] if tokens[:1] == [last] else []
    return bool(rest) and all(any(_abbreviates(token, word) for word in words) for token in rest)


def _abbreviates(token: str, word: str) -> bool:
    """Return whether `token` abbreviates `word`, as ``acc`` and ``acceleration`` do for ``accelerometer``."""
    return bool(token) and (word.startswith(token) or (len(token) >= 5 and word[:5] == token[:5]))


def _split_unit(name: str) -> tuple[str, str]:
    """Split ``x [g]`` into ``x`` and ``g``."""
    match = re.fullmatch(r"(.*?)\s*[\[(]\s*([^\])]*?)\s*[\])]", name.strip())
    return (match[1], match[2]) if match and match[1] else (name.strip(), "")


def is_time(name: str) -> bool:
    """Return whether a column with this name contains time stamps."""
    return re.split(r"[^a-z]+", name.lower())[0] in TIME_NAMES


def factor_of(units: str, modality: Modality) -> float:
    """Return the factor from `units` to the unit of the modality.

    Raises:
        DataError: If the units are not convertible.
    """
    try:
        return conversion(units, modality.units) if units else 1.0
    except ValueError as error:
        raise DataError(f"{modality.name} is in {modality.units}: {error}") from error


def _factor(own: str, name: str, units: str, modality: Modality) -> float:
    if own and units and factor_of(own, modality) != factor_of(units, modality):
        raise DataError(f"column {name!r} is in {own!r}, but the given units are {units!r}")
    return factor_of(own or units, modality)


def check_clock(times: np.ndarray, name: str, rate: float) -> None:
    """Check that a column of time stamps is consistent with the rate, and warn about a gap of more than ten samples.

    Raises:
        DataError: If its median step is not ``1 / rate`` in any unit of time that the column name allows.
    """
    if len(times) < 2:
        return
    unit = (_split_unit(name)[1] or re.split(r"[^a-zµ]+", name.lower())[-1]).replace("µ", "u")
    scales = [SECONDS[unit]] if unit in SECONDS else sorted(set(SECONDS.values()))
    steps = np.diff(times)
    if (steps < 0).any() and not (steps <= 0).all():
        raise DataError(f"column {name!r} decreases at row {int((steps < 0).argmax()) + 2}; sort the rows by time")
    step = float(np.median(steps))
    if not any(same_rate(step * scale * rate, 1.0) for scale in scales):
        raise DataError(f"column {name!r} increases by {step:g} per row, which does not match {rate:g} samples per second")
    if largest_gap(Signal(times, rate, times=times)) > INTERRUPTED:
        row = int(steps.argmax()) + 2
        warn(
            f"column {name!r} increases by {steps.max():g} at row {row}, a gap of more than {INTERRUPTED} samples; "
            "the recording is read as if it were not interrupted, so cut it there",
            kind=f"{name} interrupted",
        )


def refuse_clock(values: np.ndarray) -> None:
    """Check that the first column of a table without names does not look like time stamps.

    Raises:
        DataError: If it increases in equal steps.
    """
    steps = np.diff(values[:, 0])
    if len(values) >= STEADY and steps.min() > 0 and np.ptp(steps) < 0.01 * steps.mean():
        raise DataError("the first column looks like time stamps, but has no name; name the columns in the first line")
