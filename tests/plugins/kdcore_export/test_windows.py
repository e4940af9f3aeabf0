"""A student of two sensors that was trained on windows, exported and run by the example in the docs."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from runtime_example import classify

from kdcore import Modality, Signal, load_student
from kdcore.data.branch import Branch
from kdcore.data.pipeline import Pipeline
from kdcore.deploy.saved_student import save_student
from kdcore_export.export import Request, export_student
from kdcore_export.graph import recording
from kdcore_signals.encoders import Cnn1d
from kdcore_signals.lengths import Crop, Resample

ACCELEROMETER = Modality("accelerometer", ("time", "channel"), ("channel", "time"), "m/s^2", 50.0, ("x", "y", "z"))
GYROSCOPE = ACCELEROMETER.renamed("gyroscope", units="rad/s", rate=25.0)
CROP = [{"name": "crop", "length": 32, "at": "end"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    branches = [Branch(ACCELEROMETER, [Crop(length=32, at="end")]), Branch(GYROSCOPE, [Resample(length=32)])]
    told = {
        "name": "two",
        "classes": ["sit", "stand", "walk"],
        "in_shape": [6, 32],
        "encoder": {"name": "cnn1d", "width": 8, "depth": 2},
        "transforms": {"accelerometer": CROP, "gyroscope": [{"name": "resample", "length": 32}], "joined": []},
        "recorded": {
            "accelerometer": {"shape": [60, 3], "dtype": "float32", "rate": 50.0},
            "gyroscope": {"shape": [30, 3], "dtype": "float32", "rate": 25.0},
        },
        "dataset": {"name": "synthetic-motion", "fingerprint": "", "options": {}},
        "window": {"length": 0.8, "hop": 0.4},
    }
    place = tmp_path_factory.mktemp("two") / "two"
    return save_student(place, Pipeline(branches), Cnn1d(3, (6, 32), width=8, depth=2).eval(), told)


def test_each_window_is_answered_as_by_the_student(folder, tmp_path):
    file = tmp_path / "two.onnx"
    list(export_student(Request(str(folder), file)))
    shapes = {each.name: each.shape[1:] for each in onnxruntime.InferenceSession(str(file)).get_inputs()}
    assert shapes["accelerometer"] == [40, 3]
    assert isinstance(shapes["gyroscope"][0], str)  # resampled inside, so of any length
    rng = np.random.default_rng(0)
    acceleration, turning = (rng.normal(size=(size, 3)).cumsum(0).astype(np.float32) for size in (130, 65))
    np.save(tmp_path / "a.npy", acceleration)
    np.save(tmp_path / "g.npy", turning)
    student = load_student(folder)
    expected = student.predict({"accelerometer": Signal(acceleration, 50.0), "gyroscope": Signal(turning, 25.0)})
    done = classify(file, f"gyroscope={tmp_path / 'g.npy'}", f"accelerometer={tmp_path / 'a.npy'}")
    assert done.returncode == 0, done.stderr
    answers = [line.split(" at ")[1] for line in done.stdout.splitlines()]
    wanted = [f"{0.4 * n:.2f} s: {student.classes[row.argmax()]} {row.max():.3f}" for n, row in enumerate(expected)]
    assert answers == wanted
    assert len(wanted) == 5
    assert "give one file for each of accelerometer, gyroscope" in classify(file, tmp_path / "a.npy").stderr


def test_without_transforms_a_window_is_what_is_read_and_not_a_whole_recording():
    recorded = {"shape": [500, 3], "dtype": "float32", "rate": 50.0}
    assert recording(ACCELEROMETER, [], recorded, None, window=0.8).samples == 40
    assert recording(ACCELEROMETER, [], recorded, None).samples == 500
