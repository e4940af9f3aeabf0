"""A recipe as a dictionary."""

from __future__ import annotations

from typing import Any

CNN = {"name": "cnn1d", "width": 4}


def tree(**changes: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "name": "in-python",
        "data": {"dataset": "synthetic-motion", "protocol": "cross-subject"},
        "teachers": {"body": {"modality": "skeleton", "encoder": CNN}},
        "student": {"modality": "accelerometer", "encoder": CNN},
        "losses": ["cross-entropy", {"name": "soft-target", "temperature": 2.0}],
        "training": {"epochs": 3},
        **changes,
    }
