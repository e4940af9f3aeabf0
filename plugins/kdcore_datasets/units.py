"""Factors from the units recordings come in to those used inside kdcore."""

import math
from typing import Literal

STANDARD_GRAVITY = 9.80665
"""One g in m/s²."""

Unit = Literal["m/s^2", "g", "mg", "rad/s", "deg/s", "rad", "deg", "m", "cm", "mm"]
FACTORS: dict[str, float] = {
    "m/s^2": 1.0,
    "g": STANDARD_GRAVITY,
    "mg": STANDARD_GRAVITY / 1000,
    "rad/s": 1.0,
    "deg/s": math.pi / 180,
    "rad": 1.0,
    "deg": math.pi / 180,
    "m": 1.0,
    "cm": 0.01,
    "mm": 0.001,
}
"""Unit → factor to m/s², rad/s, rad or m."""

TimeUnit = Literal["s", "ms", "us", "ns"]
SECONDS: dict[TimeUnit, float] = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
"""Unit of time stamps → seconds."""
