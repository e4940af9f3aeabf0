"""Units of recorded values and factors between them."""

from __future__ import annotations

import math
from collections.abc import Mapping

STANDARD_GRAVITY = 9.80665
"""One g in m/s²."""

FACTORS: Mapping[str, tuple[str, float]] = {
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


def conversion(unit: str, wanted: str) -> float:
    """Factor from `unit` to `wanted`.

    Args:
        unit: Such as ``g``; see `FACTORS` and `SPELLINGS`.
        wanted: Unit to convert to.

    Raises:
        ValueError: If there is no such conversion.
    """
    old, new = (SPELLINGS.get(each.strip().lower(), each.strip()) for each in (unit, wanted))
    if old == new:
        return 1.0
    if old not in FACTORS or new not in FACTORS or FACTORS[old][0] != FACTORS[new][0]:
        known = [name for name, (base, _) in FACTORS.items() if base == FACTORS.get(new, ("",))[0]]
        raise ValueError(f"cannot convert {unit!r} to {wanted!r}" + (f" (known: {', '.join(known)})" if known else ""))
    return FACTORS[old][1] / FACTORS[new][1]
