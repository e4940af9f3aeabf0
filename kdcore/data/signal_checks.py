"""Checks of recorded signals for wrong sampling rates, gaps and units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kdcore.contracts.dataset import SampleKey
from kdcore.contracts.modality import Modality, Signal
from kdcore.contracts.units import HIGHEST_RATE, LOWEST_RATE, conversion, misread_time, time_factor

INTERRUPTED = 10
"""Gap in median times between two samples above which a recording counts as interrupted."""

COARSE = (
    "a clock that is too coarse (most rows repeat the time stamp of the row before; "
    "if they are evenly sampled, set the rate instead of the time column)"
)
"""A clock coarser than the sampling: the times of samples are unknown, and interpolation between them is wrong."""

FASTEST = 40
"""Angular velocity in rad/s that people rarely exceed."""

MANY = 5
"""Number of recordings that a line names."""


def largest_gap(signal: Signal) -> float:
    """Return the longest time between two samples divided by the median time.

    It is 1 for regular sampling, and infinite if most samples have the time stamp of the sample before.
    """
    if signal.times is None or len(signal.times) < 2:
        return 1.0
    steps = np.diff(signal.times)
    usual = float(np.median(steps))
    return float(steps.max()) / usual if usual > 0 else np.inf


def interrupted(modality: Modality, gaps: Mapping[SampleKey, float]) -> list[str]:
    """Return lines on the recordings with a gap, which resampling interpolates linearly, and on those with too coarse a clock.

    Args:
        modality: What was measured.
        gaps: Sample → largest gap, see `largest_gap`.
    """
    findings = {
        "interrupted (a gap of more than ten samples)": [key for key, gap in gaps.items() if INTERRUPTED < gap < np.inf],
        f"with {COARSE}": [key for key, gap in gaps.items() if gap == np.inf],
    }
    return [f"{modality.name}: {len(keys)} {what}: {_named(keys)}" for what, keys in findings.items() if keys]


def measured_rate(signal: Signal) -> float:
    """Return a signal's sampling rate in Hz as the inverse of the median time between two samples."""
    if signal.times is None or len(signal.times) < 2:
        return float(signal.rate)
    step = float(np.median(np.diff(signal.times)))
    return 1 / step if step > 0 else float(signal.rate)


def odd_rates(modality: Modality, rates: Mapping[SampleKey, float]) -> list[str]:
    """Return a line on the recordings whose rate differs from the dataset's, or is implausible if it declares none.

    A rate is implausible outside 0.5 Hz to 5 kHz, or if it is about 1000 times larger or smaller than the median, or a power of
    that. Such factors suggest time stamps in another unit, which the line names.

    Args:
        modality: What was measured.
        rates: Sample → sampling rate in Hz, see `measured_rate`.
    """
    if not rates:
        return []
    usual = modality.rate or float(np.median([*rates.values()]))
    different = set(rates.values())  # usually few
    if modality.rate:
        odd_values = {rate for rate in different if not 0.8 < rate / usual < 1.25}
        what = f"not sampled at the {modality.rate:g} Hz that the dataset says"
    else:
        odd_values = {rate for rate in different if not _plausible(rate) or time_factor(rate, usual) != 1}
        what = "sampled at an implausible rate"
    if not odd_values:
        return []
    odd = {key: rate for key, rate in rates.items() if rate in odd_values}
    units = {misread_time(rate, modality.rate or (usual if _plausible(rate) else None)) for rate in odd_values}
    unit = units.pop() if len(units) == 1 else ""
    extremes = f"{min(odd.values()):.4g} to {max(odd.values()):.4g} Hz"
    return [f"{modality.name}: {len(odd)} {what}: {extremes}{unit}: {_named([*odd])}"]


def _plausible(rate: float) -> bool:
    return LOWEST_RATE <= rate <= HIGHEST_RATE


def _named(keys: Sequence[SampleKey]) -> str:
    more = f" and {len(keys) - MANY} more" if len(keys) > MANY else ""
    return "; ".join(map(str, keys[:MANY])) + more


def likely_unit(modality: Modality, size: float, peak: float) -> str:
    """Return the unit that a signal seems to have, if it is not the modality's, else an empty string.

    Acceleration at rest is as long as gravity. People rarely turn faster than `FASTEST`.

    Args:
        modality: What was measured, in g, m/s² or rad/s; other units are not checked.
        size: Median Euclidean length of the signal's vectors.
        peak: Largest absolute value.
    """
    if modality.units == "rad/s":
        return "deg/s" if peak > FASTEST else ""
    if modality.units not in ("g", "m/s^2"):
        return ""
    return next(
        (unit for unit in ("g", "m/s^2", "mg") if unit != modality.units and 0.8 < size / conversion("g", unit) < 1.25), ""
    )


def odd_units(modality: Modality, vectors: np.ndarray) -> list[str]:
    """Return a line if recordings seem to be in another unit than the dataset says.

    Args:
        modality: What was measured.
        vectors: (recordings, time, channels).
    """
    size = float(np.median(np.linalg.norm(vectors.astype(np.float64), axis=2)))
    peak = float(np.median(np.abs(vectors).max(axis=(1, 2))))
    unit = likely_unit(modality, size, peak)
    if not unit:
        return []
    reach = f"half of the recordings reach {peak:.3g}" if unit == "deg/s" else f"vectors are {size:.3g} long"
    return [f"{modality.name}: {reach}, as in {unit}; the dataset says {modality.units}"]
