"""A made-up summary of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kdcore.runs.gain import paired_difference
from kdcore.runs.metrics import evaluate
from kdcore.runs.summary import Row, Summary


def answers(right, n=40, classes=4):
    """`right` of n answers are right."""
    labels = np.arange(n) % classes
    predictions = np.where(np.arange(n) < right, labels, (labels + 1) % classes)
    return evaluate(np.eye(classes)[predictions], labels)


def summary(seeds=(0, 1, 2), **changes):
    with_kd, without = [answers(min(30 + 2 * seed, 40)) for seed in seeds], [answers(min(24 + seed, 40)) for seed in seeds]
    content = {
        "name": "sakdn",
        "description": "RGB learns from accelerometer and gyroscope.",
        "rule": "cross-subject: 1, 3, 5, 7 train; 2, 4, 6, 8 test",
        "selection": "last epoch",
        "seeds": seeds,
        "classes": ["wave", "clap", "throw", "<b>draw</b> & X"],
        "rows": [
            Row("acc", "teacher", "accelerometer", [answers(36) for _ in seeds], 1_234_567),
            Row("acc + gyro", "teacher ensemble", "accelerometer, gyroscope", [answers(38) for _ in seeds]),
            Row("rgb", "baseline", "rgb", without, 42, "baseline"),
            Row("rgb", "distilled", "rgb", with_kd, 42),
        ],
        "differences": {"rgb": paired_difference(with_kd, without)},
        "versions": {"kdcore": "0.1.0"},
        "recipe": "name: sakdn # <script>",
        "command": "kdcore run recipes/sakdn.yaml seeds=[0,1,2]",
        "folder": Path("runs/sakdn"),
        "tracking": "mlflow ui --backend-store-uri sqlite:///mlflow.db",
    }
    return Summary(**{**content, **changes})
