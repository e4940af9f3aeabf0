"""Small recordings of one wearable, and recipes for them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from pydantic import TypeAdapter
from runs import SIGNAL_LENGTH, encoder

from kdcore_datasets.sensor_csv.dataset import SensorCsv

CLASSES = ("walk", "sit")


def write_recordings(folder: Path, seed: int, subjects: int = 4) -> Path:
    """Two classes, two trials each; walking moves more. Another seed gives other numbers in files of the same names."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for subject in range(1, subjects + 1):
        for label in CLASSES:
            for trial in (1, 2):
                values = generator.normal(0, 2 if label == "walk" else 1, (20, 6)).round(3)
                rows = "\n".join(",".join(map(str, row)) for row in values)
                (folder / f"s{subject}_{label}_{trial}.csv").write_text(f"ax,ay,az,gx,gy,gz\n{rows}\n")
    return folder


def sensor_sections(root: Path, **protocol: Any) -> dict[str, Any]:
    """Sections of a recipe in which a gyroscope teaches an accelerometer, one epoch each."""
    columns = {"accelerometer": ["ax", "ay", "az"], "gyroscope": ["gx", "gy", "gz"]}
    device = {"pattern": "s{subject}_{action}_{trial}.csv", "columns": columns, "rate": 50}
    steps = [{"name": "resample", "length": SIGNAL_LENGTH}, "normalise"]
    return {
        "data": {
            "dataset": {"name": "sensor-csv", "root": str(root), "devices": {"watch": device}, "label": {"path": "action"}},
            "protocol": protocol or {"name": "cross-subject"},
            "batch_size": 4,
        },
        "teachers": {"gyro": {"modality": "gyroscope-watch", "transforms": steps, "encoder": encoder()}},
        "student": {"modality": "accelerometer-watch", "transforms": steps, "encoder": encoder()},
    }


ACC = {"accelerometer": ["x", "y", "z"]}


def dataset(**options: Any) -> SensorCsv:
    """The dataset that a recipe with these options describes."""
    hints = get_type_hints(SensorCsv.__init__, include_extras=True)
    assert set(options) <= set(inspect.signature(SensorCsv).parameters)
    return SensorCsv(**{name: TypeAdapter(hints[name]).validate_python(value) for name, value in options.items()})


def write(path: Path, rows: list[list[object]], header: str = "t,x,y,z,label") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path
