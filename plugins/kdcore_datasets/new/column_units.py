"""Units in column names such as ``Acc X (g)`` and ``time [ms]``."""

from __future__ import annotations

import re

_SPELLINGS = {
    "m/s^2": ("m/s^2", "m/s2", "m/s²", "m/s/s", "ms-2", "m*s-2"),
    "g": ("g",),
    "mg": ("mg",),
    "rad/s": ("rad/s", "rads-1"),
    "deg/s": ("deg/s", "°/s", "dps", "degs-1", "degrees/s"),
    "s": ("s", "sec", "seconds"),
    "ms": ("ms", "msec", "milliseconds"),
    "us": ("us", "µs", "μs", "microseconds"),
    "ns": ("ns", "nanoseconds"),
}
_UNITS = {spelling: unit for unit, spellings in _SPELLINGS.items() for spelling in spellings}


def unit_in(name: str) -> str:
    """Return the unit in brackets in a column name, as in recipes; empty if there is none or it is unknown."""
    found = re.search(r"[(\[]([^)\]]*)[)\]]\s*$", name)
    return _UNITS.get(found[1].strip().lower().replace(" ", ""), "") if found else ""
