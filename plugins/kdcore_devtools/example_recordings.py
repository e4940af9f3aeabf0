"""Small example recordings for a new dataset plugin, so that its recipe can be run without real data."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SUBJECTS, TRIALS, RATE, ROWS = ("anna", "ben", "chen", "dora"), 3, 50.0, 60
ACTIONS = {"circle": 1.0, "shake": 4.0, "tap": 2.0}
"""Movements per second by action."""


def recordings(folder: Path) -> Iterator[tuple[Path, str]]:
    """Return CSV files by path, with three columns of acceleration (m/s²) and three of angular velocity (rad/s)."""
    for s, subject in enumerate(SUBJECTS):
        for a, (action, frequency) in enumerate(ACTIONS.items()):
            for trial in range(1, TRIALS + 1):
                yield folder / f"{subject}_{action}_{trial}.csv", _csv(frequency, np.random.default_rng((s, a, trial)))


def _csv(frequency: float, random: np.random.Generator) -> str:
    time = np.arange(ROWS)[:, None] / RATE
    phase = random.uniform(0, 2 * np.pi, 6)
    strength = np.array([3.0, 3.0, 1.0, 1.0, 1.0, 2.0])
    values = strength * np.sin(2 * np.pi * frequency * time + phase) + random.normal(0, 0.5, (ROWS, 6))
    values[:, 2] += 9.81
    text = io.StringIO()
    np.savetxt(text, values, "%.3f", ",", header="ax,ay,az,gx,gy,gz", comments="")
    return text.getvalue()
