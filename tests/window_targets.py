"""A dataset of windows in a file, with labels or values that their amplitudes tell, and a recipe for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

N = 48
LABELS = (np.random.default_rng(3).random((N, 2)) < 0.5).astype(int)
VALUES = 70 + 10 * LABELS + np.random.default_rng(4).random((N, 2))
"""(N, 2) 0 or 1 of the labels ``a`` and ``b``, and values of the same names."""


def write_recipe(folder: Path, kind: str, answers: np.ndarray, **changed: Any) -> str:
    """A recipe in `folder` of recordings whose amplitudes tell `answers`."""
    random = np.random.default_rng(0)
    waves = np.sin(2 * np.pi * np.array([1, 3])[:, None] * np.arange(32) / 32)
    signals = np.einsum("nl,lt->nt", answers, waves)[..., None] + 0.3 * random.normal(size=(N, 32, 3))
    np.savez(folder / "all.npz", X=signals.astype(np.float32), Y=answers, who=np.repeat(np.arange(8), 6))
    also = {"labels": "all.npz:Y", "subjects": "all.npz:who"}
    tree = {
        "version": 1,
        "name": f"windows-{kind}",
        "data": {
            "dataset": {
                "name": "windows",
                "root": str(folder),
                "rate": 50,
                "target": kind,
                "classes": ["a", "b"],
                "sets": {"all": {"signals": {"accelerometer": ["all.npz:X"]}, **also}},
            },
            "protocol": {"name": "cross-subject", "validation_subjects": 1},
            "batch_size": 8,
        },
        "student": {"modality": "accelerometer", "transforms": ["normalise"], "encoder": {"name": "cnn1d", "width": 4}},
        "losses": [{"labels": "binary-cross-entropy", "values": "regression"}[kind]],
        "training": {"epochs": 4},
        "seeds": [0, 1],
        "engine": {"accelerator": "cpu", "threads": 1},
        **changed,
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree))
    return str(folder / "recipe.yaml")
