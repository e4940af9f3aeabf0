"""Checks of recorded signals that can be read and may still be wrong: constant, saturated, in other units, wrongly timed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low

import numpy as np

from kdcore.contracts.dataset import SampleKey
from kdcore.contracts.modality import Modality, Signal
from kdcore.contracts.units import HIGHEST_RATE, LOWEST_RATE, STANDARD_GRAVITY, misread_time, time_factor

FACTORS = {
    ("m/s^2", STANDARD_GRAVITY): "g",
    ("rad/s", 180 / np.pi): "deg/s",
    ("rad", 180 / np.pi): "deg",
    ("m", 1000.0): "mm",
    ("m", 100.0): "cm",
}
"""(unit, factor) → the other unit between which and this one the factor lies."""

SATURATED = 0.2
"""Share of a channel's samples that stand at its largest or smallest value before it is called saturated."""

INTERRUPTED = 10
"""Gap, in median times between two samples, from which a recording counts as interrupted."""

MANY = 5
"""Recordings that a line names."""


@dataclass(frozen=True)
class Measured:
    """The measurements of one recorded signal.

    Args:
        key: Of the sample.
        length: Samples in time.
        duration: Seconds.
        rate: Samples per second, as its clock has them.
        low: Smallest value.
        high: Largest value.
        typical: Median over time of the vectors' Euclidean length (over all axes but time).
        still: True if no value changes over time.
        stuck: Largest share of a channel's samples that stand at the channel's largest or smallest value.
        gap: Longest time between two samples over the median one; 1 where sampling is even.
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


def largest_gap(signal: Signal) -> float:
    """Longest time between two samples over the median one; 1 where sampling is even."""
    if signal.times is None or len(signal.times) < 2:
        return 1.0
    steps = np.diff(signal.times)
    usual = float(np.median(steps))
    return float(steps.max()) / usual if usual > 0 else 1.0


def interrupted(modality: Modality, gaps: Mapping[SampleKey, float]) -> list[str]:
    """A line on the recordings with a gap, which resampling would bridge with a straight line.

    Args:
        modality: What was measured.
        gaps: Sample → largest gap, see `largest_gap`.
    """
    found = [key for key, gap in gaps.items() if gap > INTERRUPTED]
    return [f"{modality.name}: {len(found)} interrupted (a gap of more than ten samples): {_named(found)}"] if found else []


def measured_rate(signal: Signal) -> float:
    """Samples per second as the signal's clock has them: one over the median time between two samples."""
    if signal.times is None or len(signal.times) < 2:
        return float(signal.rate)
    usual = float(np.median(np.diff(signal.times)))
    return 1 / usual if usual > 0 else float(signal.rate)


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
    said = [
        f"{modality.name}: {len(found)} {what}: {_named([each.key for each in found])}"
        for what, found in findings.items()
        if found
    ]
    gaps = interrupted(modality, {each.key: each.gap for each in measured})
    return [*said, *gaps, *odd_rates(modality, {each.key: each.rate for each in measured})]


def odd_rates(modality: Modality, rates: Mapping[SampleKey, float]) -> list[str]:
    """A line on the recordings whose rate is not the dataset's, and one on those whose rate is implausible.

    Without a rate of the dataset, one is implausible outside 0.5 Hz to 5 kHz, or if it is about 1000 times larger or smaller
    than the median, or a power of that. Such factors suggest time stamps in another unit, which is named.

    Args:
        modality: What was measured.
        rates: Sample → samples per second, see `measured_rate`.
    """
    if not rates:
        return []
    usual = modality.rate or float(np.median([*rates.values()]))
    if modality.rate:
        off = [key for key, rate in rates.items() if not 0.8 < rate / usual < 1.25]
        what = f"not sampled at the {modality.rate:g} Hz that the dataset says"
    else:
        off = [key for key, rate in rates.items() if not LOWEST_RATE <= rate <= HIGHEST_RATE or time_factor(rate, usual) != 1]
        what = "sampled at an implausible rate"
    if not off:
        return []
    found = sorted(rates[key] for key in off)
    units = {misread_time(rate, modality.rate or _reference(rate, usual)) for rate in found}
    unit = units.pop() if len(units) == 1 else ""
    return [f"{modality.name}: {len(off)} {what}: {found[0]:.4g} to {found[-1]:.4g} Hz{unit}: {_named(off)}"]


def _reference(rate: float, usual: float) -> float | None:
    """The rate that one is compared with: the others' median, but for one that is impossible by itself."""
    return usual if LOWEST_RATE <= rate <= HIGHEST_RATE else None


def odd_ranges(modality: Modality, measured: Sequence[Measured]) -> list[str]:
    """A line for each subject, and each recording of an ordinary subject, whose values are of another size than the others'.

    A size is the median length of a signal's vectors; another one is more than four times larger or smaller than the median
    of the other subjects. The unit is guessed where the factor is near one between units.
    """
    moving = [each for each in measured if each.typical > 0]
    subjects: dict[str, list[float]] = {}
    for each in moving:
        subjects.setdefault(each.key.subject, []).append(each.typical)
    sizes = {subject: median_low(found) for subject, found in subjects.items()}
    said, odd = [], set()
    for subject, size in sizes.items():
        others = [other for name, other in sizes.items() if name != subject]
        if others and _another(factor := size / float(np.median(others))):
            odd.add(subject)
            said.append(f"{modality.name}: subject {subject} measures {_times(factor)} the others{_unit(modality, factor)}")
    ordinary = [each for each in moving if each.key.subject not in odd]
    usual = float(np.median([each.typical for each in ordinary])) if ordinary else 0.0
    files = [each for each in ordinary if _another(each.typical / usual)]
    for each in files[:MANY]:
        factor = each.typical / usual
        said.append(f"{modality.name}: {each.key} measures {_times(factor)} the median{_unit(modality, factor)}")
    if len(files) > MANY:
        said.append(f"{modality.name}: {len(files) - MANY} more recordings are of another size")
    return [*said, *_all_in_another_unit(modality, list(sizes.values()))]


def _all_in_another_unit(modality: Modality, sizes: Sequence[float]) -> Iterator[str]:
    """Acceleration that includes gravity is about 9.8 m/s² long at rest; about 1 is g."""
    usual = float(np.median(sizes)) if sizes else 0.0
    if looks_like_g(modality, usual):
        yield f"{modality.name}: vectors are {usual:.3g} long, as in g; the dataset says {modality.units}"


def looks_like_g(modality: Modality, size: float) -> bool:
    """Return True if a signal in m/s² has vectors as long as gravity in g.

    Args:
        modality: What was measured.
        size: Median Euclidean length of the signal's vectors.
    """
    return modality.units == "m/s^2" and 0.8 < size < 1.25


def _another(factor: float) -> bool:
    return not 0.25 <= factor <= 4


def _times(factor: float) -> str:
    return f"{factor:.3g} times what" if factor >= 0.1 else f"1/{1 / factor:.3g} of what"


def _unit(modality: Modality, factor: float) -> str:
    """The units between which there is such a factor."""
    larger = max(factor, 1 / factor)
    known = [(between, other) for (unit, between), other in FACTORS.items() if unit == modality.units]
    near = [(between, other) for between, other in known if 0.75 < larger / between < 1.33]
    return "".join(f"; a factor near {between:.4g} suggests {modality.units} against {other}" for between, other in near)


def _named(found: Sequence[SampleKey]) -> str:
    more = f" and {len(found) - MANY} more" if len(found) > MANY else ""
    return "; ".join(map(str, found[:MANY])) + more
