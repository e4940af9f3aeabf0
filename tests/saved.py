"""A small saved student that has learnt nothing, and recordings for it."""

from __future__ import annotations

import numpy as np
import torch

from kdcore import Modality, load_predictor
from kdcore.data.branch import Branch
from kdcore.data.pipeline import Pipeline
from kdcore.deploy.predict import predict_files
from kdcore.deploy.saved_student import save_student
from kdcore_signals.encoders import Cnn1d
from kdcore_signals.lengths import Resample
from kdcore_signals.transforms import Normalise

ACCELEROMETER = Modality("accelerometer", ("time", "channel"), ("channel", "time"), "m/s^2", 50.0, ("x", "y", "z"))
CLASSES = ["sit", "stand", "walk"]
LENGTH = 24

ALONE = """
import sys

ABSENT = {absent}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT or name.startswith(tuple(f"kdcore_{{each}}." for each in {plugins})):
            raise ModuleNotFoundError(f"{{name}} is not needed", name=name)

sys.meta_path.insert(0, Absent())
sys.argv = ["kdcore", *sys.argv[1:]]
from kdcore.cli.main import main
main()
"""
"""``kdcore`` in a process where some packages and plugins cannot be imported."""


def saved_student(folder, modality=ACCELEROMETER, dataset="synthetic-motion", seed=0, options=None, **told):
    """A saved student that has learnt nothing."""
    torch.manual_seed(seed)
    channels = len(modality.channels) or 2
    normalise = Normalise()
    normalise.fit(torch.randn(8, channels, LENGTH) * 3 + 1)
    pipeline = Pipeline([Branch(modality, [Resample(length=LENGTH)], [normalise])])
    encoder = Cnn1d(len(CLASSES), (channels, LENGTH), width=8, depth=2).eval()
    name = modality.name
    description = {
        "name": folder.name,
        "classes": CLASSES,
        "in_shape": [channels, LENGTH],
        "encoder": {"name": "cnn1d", "width": 8, "depth": 2},
        "transforms": {name: [{"name": "resample", "length": LENGTH}, {"name": "normalise"}], "joined": []},
        "recorded": {name: {"shape": [60, channels], "dtype": "float32", "rate": modality.rate or 50.0}},
        "dataset": {"name": dataset, "fingerprint": "", "options": options or {}},
        "window": None,
        **told,
    }
    return save_student(folder, pipeline, encoder, description)


def lines(folder, files, top=3, **options):
    return [each.line(top) for each in predict_files(load_predictor(folder), files, **options)]


def walk(samples, channels=3, seed=0):
    return np.random.default_rng(seed).normal(size=(samples, channels)).cumsum(0).astype(np.float32)
