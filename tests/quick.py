"""The tiny recipe with as little training as there can be."""

from __future__ import annotations

QUICK = {
    "schedule": {"name": "two-stage", "teachers": {"epochs": 1}, "student": {"epochs": 1}},
    "engine": {"accelerator": "cpu", "threads": 1, "checkpoint_seconds": 0},
}
