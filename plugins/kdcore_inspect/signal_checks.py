"""Checks of recorded signals that can be read and may still be wrong: constant, saturated, in other units, wrongly timed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median_low

import numpy as np

from kdcore import (
    UNITS,
    Modality,
    SampleKey,
    Signal,
    interrupted,
    largest_gap,
    likely_unit,
    measured_rate,
    odd_rates,
)

FACTORS = {
    ("m/s^2", UNITS["g"][1]): "g",
    ("rad/s", 180 / np.pi): "deg/s",
    ("rad", 180 / np.pi): "deg",
    ("m", 1000.0): "mm",
    ("m", 100.0): "cm",
}
"""(unit, factor) → unit that is smaller or larger by this factor."""

SATURATED = 0.2
"""Share of a channel's samples at its largest or smallest value above which it counts as saturated."""

MANY = 5
"""Number of recordings that a line names."""


@dataclass(frozen=True)
class Measured:
    """The measurements of one recorded signal.

    Args:
        key: Key of the sample.
        length: Number of time steps.
        duration: Duration in seconds.
        rate: Sampling rate in Hz according to its clock.
        low: Smallest value.
        high: Largest value.
        typical: Median over time of the vectors' Euclidean length (over all axes but time).
        still: True if no value changes over time.
        stuck: Largest share of a channel's samples at the channel's largest or smallest value.
        gap: Longest time between two samples divided by the median time; 1 for regular sampling.
    """

    key: SampleKey
    length: int
    duration: float
    rate: float
    low: float
    high: float
    typical: float
    still: bool
    stuck: float
    gap: float


def measure(key: SampleKey, signal: Signal) -> Measured:
    """Measure `signal`, which is finite and not empty."""
    values = np.asarray(signal.values).reshape(len(signal), -1)
    still = bool((values == values[:1]).all())
    lengths = np.sqrt(np.square(values, dtype=np.float64).sum(axis=1))
    gap = largest_gap(signal)
    extent = (float(values.min()), float(values.max()))
    return Measured(
        key, len(signal), signal.duration, measured_rate(signal), *extent, float(np.median(lengths)), still, _stuck(values), gap
    )


def _stuck(values: np.ndarray) -> float:
    """Share of samples at the extremes, of the channel with the largest; channels that never change do not count."""
    if values.dtype.kind != "f" or len(values) < 20 or values.shape[1] > 100:
        return 0.0  # bytes and pictures are often at their extremes
    low, high = values.min(axis=0), values.max(axis=0)
    moving = high > low
    shares = np.maximum((values == low).mean(axis=0), (values == high).mean(axis=0))[moving]
    return float(shares.max()) if len(shares) else 0.0


def odd_signals(modality: Modality, measured: Sequence[Measured]) -> list[str]:
    """A line for each way in which single recordings look wrong, with the recordings."""
    durations = np.array([each.duration for each in measured])
    usual = float(np.median(durations))
    findings = {
        "all zero": [each for each in measured if each.still and each.low == each.high == 0],
        "constant": [each for each in measured if each.still and not (each.low == each.high == 0)],
        f"saturated (over {SATURATED:.0%} of a channel at its largest or smallest value)": [
            each for each in measured if not each.still and each.stuck > SATURATED
        ],
        f"very short (less than a tenth of the median {usual:.3g} s)": [
            each for each in measured if each.length < 2 or each.duration < usual / 10
        ],
    }
    lines = [
        f"{modality.name}: {len(group)} {what}: {_named([each.key for each in group])}"
        for what, group in findings.items()
        if group
    ]
    gaps = interrupted(modality, {each.key: each.gap for each in measured})
    return [*lines, *gaps, *odd_rates(modality, {each.key: each.rate for each in measured})]


def odd_ranges(modality: Modality, measured: Sequence[Measured]) -> list[str]:
    """A line for each subject, and each recording of an ordinary subject, whose values are of another size than the others'.

    A size is the median length of a signal's vectors; another one is more than four times larger or smaller than the median
    of the other subjects. The unit is guessed where the factor is near one between units.
    """
    moving = [each for each in measured if each.typical > 0]
    subjects: dict[str, list[float]] = {}
    for each in moving:
        subjects.setdefault(each.key.subject, []).append(each.typical)
    sizes = {subject: median_low(values) for subject, values in subjects.items()}
    lines, odd = [], set()
    for subject, size in sizes.items():
        others = [other for name, other in sizes.items() if name != subject]
        if others and _another(factor := size / float(np.median(others))):
            odd.add(subject)
            lines.append(f"{modality.name}: subject {subject} measures {_times(factor)} the others{_unit(modality, factor)}")
    ordinary = [each for each in moving if each.key.subject not in odd]
    usual = float(np.median([each.typical for each in ordinary])) if ordinary else 0.0
    files = [each for each in ordinary if _another(each.typical / usual)]
    for each in files[:MANY]:
        factor = each.typical / usual
        lines.append(f"{modality.name}: {each.key} measures {_times(factor)} the median{_unit(modality, factor)}")
    if len(files) > MANY:
        lines.append(f"{modality.name}: {len(files) - MANY} more recordings are of another size")
    peaks = [max(abs(each.low), abs(each.high)) for each in moving]
    return [*lines, *_all_in_another_unit(modality, list(sizes.values()), peaks)]


def _all_in_another_unit(modality: Modality, sizes: Sequence[float], peaks: Sequence[float]) -> Iterator[str]:
    """A line if the median recording seems to be in another unit than the dataset says."""
    peak = float(np.median(peaks)) if peaks else 0.0
    usual = float(np.median(sizes)) if sizes else 0.0
    if unit := likely_unit(modality, usual, peak):
        reach = f"half of the recordings reach {peak:.3g}" if unit == "deg/s" else f"vectors are {usual:.3g} long"
        yield f"{modality.name}: {reach}, as in {unit}; the dataset says {modality.units}"


def _another(factor: float) -> bool:
    return not 0.25 <= factor <= 4


def _times(factor: float) -> str:
    return f"{factor:.3g} times as much as" if factor >= 0.1 else f"1/{1 / factor:.3g} as much as"


def _unit(modality: Modality, factor: float) -> str:
    """The units between which there is such a factor."""
    larger = max(factor, 1 / factor)
    known = [(between, other) for (unit, between), other in FACTORS.items() if unit == modality.units]
    near = [(between, other) for between, other in known if 0.75 < larger / between < 1.33]
    return "".join(f"; a factor near {between:.4g} suggests {modality.units} against {other}" for between, other in near)


def _named(keys: Sequence[SampleKey]) -> str:
    more = f" and {len(keys) - MANY} more" if len(keys) > MANY else ""
    return "; ".join(map(str, keys[:MANY])) + more
