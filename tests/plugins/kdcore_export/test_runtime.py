"""The example in the docs, where torch cannot be imported."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from runtime_example import WITHOUT, classify

from kdcore import Signal, load_student


def test_arrays_and_tables_get_their_labels(exported, students, tmp_path):
    x = np.random.default_rng(0).normal(size=(71, 3)).cumsum(0).astype(np.float32)
    np.save(tmp_path / "clip.npy", x)
    np.savetxt(tmp_path / "clip.csv", x, delimiter=",", header="x,y,z", comments="", fmt="%.9e")
    np.savetxt(tmp_path / "turned.csv", x[:, ::-1], delimiter=",", header="z,y,x", comments="", fmt="%.9e")
    done = classify(exported()[0], tmp_path / "clip.npy", tmp_path / "clip.csv", tmp_path / "turned.csv")
    assert done.returncode == 0, done.stderr
    student = load_student(students / "a")
    [answer] = student.predict({"accelerometer": Signal(x, 50.0)})
    expected = f"{student.classes[answer.argmax()]} {answer.max():.3f}"
    assert done.stdout.splitlines() == [f"{tmp_path / name}: {expected}" for name in ("clip.npy", "clip.csv", "turned.csv")]
    np.savetxt(tmp_path / "gyro.csv", x, delimiter=",", header="gx,gy,gz", comments="")
    assert "this has columns ['gx', 'gy', 'gz']" in classify(exported()[0], tmp_path / "gyro.csv").stderr


def test_it_says_what_it_reads_and_what_it_cannot(exported, tmp_path):
    assert "accelerometer: any length at 50.0 Hz, m/s^2" in classify(exported()[0]).stdout
    np.save(tmp_path / "turned.npy", np.zeros((3, 50)))
    done = classify(exported()[0], tmp_path / "turned.npy")
    assert done.returncode == 2
    assert "turned.npy: accelerometer has axes" in done.stderr
    assert "Traceback" not in done.stderr


def test_torch_is_really_absent():
    command = [sys.executable, "-c", WITHOUT.replace("runpy.run_path", "import torch #")]
    assert "No module named 'torch'" in subprocess.run(command, capture_output=True, text=True, check=False).stderr
