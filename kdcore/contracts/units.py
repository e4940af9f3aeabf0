"""Units of recorded values and factors between them."""

from __future__ import annotations

import math
from collections.abc import Mapping

STANDARD_GRAVITY = 9.80665
"""One g in m/s²."""

UNITS: Mapping[str, tuple[str, float]] = {
    "m/s^2": ("m/s^2", 1.0),
    "g": ("m/s^2", STANDARD_GRAVITY),
    "mg": ("m/s^2", STANDARD_GRAVITY / 1000),
    "rad/s": ("rad/s", 1.0),
    "deg/s": ("rad/s", math.pi / 180),
    "rad": ("rad", 1.0),
    "deg": ("rad", math.pi / 180),
    "m": ("m", 1.0),
    "cm": ("m", 0.01),
    "mm": ("m", 0.001),
}
"""Unit → base unit and factor to it."""

SPELLINGS: Mapping[str, str] = {
    "m/s²": "m/s^2", "m/s2": "m/s^2", "m/s/s": "m/s^2", "ms-2": "m/s^2", "m·s⁻²": "m/s^2",
    "°/s": "deg/s", "dps": "deg/s", "degrees/s": "deg/s", "°": "deg", "degrees": "deg",
    "rads": "rad/s", "rad·s⁻¹": "rad/s", "metres": "m", "meters": "m",
}  # fmt: skip
"""Other spellings of the same units."""

SECONDS: Mapping[str, float] = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
"""Unit of time → seconds."""


LOWEST_RATE, HIGHEST_RATE = 0.5, 5000.0
"""Range of plausible sampling rates in Hz, for rates derived from time stamps."""

USUAL_RATE = 50.0
"""Typical sampling rate of movement recordings, in Hz."""


SAME_RATE = 0.05
"""Relative tolerance within which two sampling rates count as equal."""


def same_rate(one: float, other: float) -> bool:
    """True if `one` differs from `other` by no more than `SAME_RATE`; clocks of devices are not exact."""
    return abs(one / other - 1) <= SAME_RATE


def rounded_rate(rate: float, resolution: float) -> float:
    """Round a rate to the fewest digits at which its sampling interval is within the clock's resolution.

    Args:
        rate: Sampling rate in Hz derived from time stamps, greater than 0.
        resolution: Resolution of the time stamps in seconds.
    """
    for digits in range(6):
        rounded = round(rate, digits)
        if rounded > 0 and abs(1 / rounded - 1 / rate) <= resolution:
            return rounded
    return round(rate, 6)


def time_factor(rate: float, nominal: float | None = None) -> float:
    """The power of 1000 that corrects a rate whose time stamps seem to be in another unit; 1.0 if the rate is plausible.

    Args:
        rate: Sampling rate in Hz derived from time stamps.
        nominal: Declared sampling rate in Hz, if any.

    Returns:
        Factor on the rate: 1000.0 for time stamps in ms that were read as s, 0.001 for s read as ms.
    """
    if not rate > 0 or not math.isfinite(rate):
        return 1.0
    ratio = (nominal or USUAL_RATE) / rate
    power = max(-3, min(3, round(math.log(ratio, 1000))))
    if nominal:
        return 1000.0**power if 0.75 < ratio / 1000.0**power < 1.33 else 1.0
    return 1.0 if LOWEST_RATE <= rate <= HIGHEST_RATE else 1000.0**power


def misread_time(rate: float, nominal: float | None = None) -> str:
    """A clause that says which unit the time stamps seem to have, to end a message; empty if the rate is plausible.

    Args:
        rate: As in `time_factor`.
        nominal: As in `time_factor`.
    """
    factor = time_factor(rate, nominal)
    if factor == 1:
        return ""
    units = [(name, seconds) for name, seconds in SECONDS.items() if name.isascii()]
    pairs = [(unit, read) for read, known in units for unit, seconds in units if math.isclose(seconds * factor, known)]
    return ", as if time stamps in " + " or ".join(f"{unit} were read as {read}" for unit, read in pairs)


def conversion(unit: str, wanted: str) -> float:
    """Factor from `unit` to `wanted`.

    Args:
        unit: Such as ``g``; see `UNITS` and `SPELLINGS`.
        wanted: Unit to convert to.

    Raises:
        ValueError: If there is no such conversion.
    """
    old, new = (SPELLINGS.get(each.strip().lower(), each.strip()) for each in (unit, wanted))
    if old == new:
        return 1.0
    if old not in UNITS or new not in UNITS or UNITS[old][0] != UNITS[new][0]:
        known = [name for name, (base, _) in UNITS.items() if base == UNITS.get(new, ("",))[0]]
        raise ValueError(f"cannot convert {unit!r} to {wanted!r}" + (f" (known: {', '.join(known)})" if known else ""))
    return UNITS[old][1] / UNITS[new][1]
