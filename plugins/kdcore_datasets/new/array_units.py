"""Guess the units of windows from the size of their values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kdcore import KdcoreError
from kdcore_datasets.new.guess import Guess
from kdcore_datasets.new.text_tables import gravity_unit
from kdcore_datasets.window_files import load_rows, located

FASTEST = 40.0
"""Rad/s that no body reaches: larger values are in degrees per second."""

_WINDOWS = 64
"""Windows that are looked at."""


def add_units(guess: Guess, root: Path) -> None:
    """Add units of accelerometers and gyroscopes that are not kdcore's own, as the first set shows them."""
    part: Mapping[str, Any] = next(iter(guess.dataset["sets"].values()))
    units = {}
    for kind, names in part["signals"].items():
        if kind not in ("accelerometer", "gyroscope"):
            continue
        try:
            values = _values(root, names, part.get("channels", {}).get(kind), guess.dataset.get("axes", ""))
        except (KdcoreError, ValueError, TypeError, IndexError):
            continue
        if kind == "gyroscope":
            units |= {kind: "deg/s"} if np.nanmax(np.abs(values)) > FASTEST else {}
            continue
        unit = gravity_unit(float(np.nanmedian(np.linalg.norm(values, axis=1))))
        if unit in ("g", "mg"):
            units[kind] = unit
        elif not unit:
            guess.notes.append(f"the {kind} has no typical length of 1 g, so its unit is not known; m/s^2 is assumed")
    if units:
        guess.dataset["units"] = units
        guess.why["units",] = "guessed from the size of the values; check them"


def _values(root: Path, names: list[str], channels: list[int] | None, axes: str) -> np.ndarray:
    """The values of some windows, (rows, channels)."""
    found = []
    arrays = [load_rows(*located(root, name)) for name in names]
    for number in range(min(len(arrays[0]), _WINDOWS)):
        windows = [np.asarray(each[number], dtype=np.float64) for each in arrays]
        window = np.stack(windows, axis=1) if len(windows) > 1 else windows[0]
        if len(windows) == 1 and axes == "windows-channels-time" and ":series" not in names[0]:
            window = window.T
        found.append(window[:, channels] if channels else window)
    return np.concatenate(found)
