"""The tiny recipe with as little training as there can be."""

from __future__ import annotations

from pathlib import Path

from runs import Home

QUICK = {
    "schedule": {"name": "two-stage", "teachers": {"epochs": 1}, "student": {"epochs": 1}},
    "engine": {"accelerator": "cpu", "threads": 1, "checkpoint_seconds": 0},
}


def runs_of(home: Home) -> list[Path]:
    """Folders of its runs; commands keep other things beside them."""
    return [run for run in home.runs if (run / "recipe.yaml").exists()]
