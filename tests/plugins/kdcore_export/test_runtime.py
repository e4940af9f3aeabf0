"""The example in the docs, where torch cannot be imported."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from runtime_example import WITHOUT, classify

from kdcore import DataError, Signal, load_student, read_recording
from kdcore_export.onnx_student import load_onnx


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
    assert "accelerometer: any length at 50 Hz, m/s^2" in classify(exported()[0]).stdout
    np.save(tmp_path / "turned.npy", np.zeros((3, 50)))
    done = classify(exported()[0], tmp_path / "turned.npy")
    assert done.returncode == 2
    assert "turned.npy: accelerometer has axes" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_model_is_an_error_of_one_line(tmp_path):
    done = classify(tmp_path / "no.onnx")
    assert (done.returncode, done.stderr) == (2, f"error: {tmp_path / 'no.onnx'}: no such file\n")


def test_tables_with_decimal_commas_are_refused(exported, tmp_path):
    """0,5,1,5,2,5 under x,y,z is not x = 0, y = 5, z = 1."""
    for name, rows, said in (
        ("commas.csv", "x,y,z\n0,5,1,5,2,5\n", "line 2 has more columns than the first line"),
        ("semicolons.csv", "x;y;z\n0,5;1,5;2,5\n", "could not convert string '0,5'"),
    ):
        header, row = rows.split()
        (tmp_path / name).write_text("\n".join([header, *[row] * 20]))
        done = classify(exported()[0], tmp_path / name)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{name}: {said}" in done.stderr


def test_kdcore_reads_the_files_that_an_exported_student_has_no_dataset_for(exported, tmp_path):
    student = load_onnx(exported()[0])
    (tmp_path / "clip.mat").write_bytes(b"")
    (tmp_path / "clip.csv").write_text("x,y,z\n1,2,3\n4,5,6\n")
    with pytest.raises(
        DataError, match=r"clip\.mat: the dataset of the student is unknown; give the dataset of this file with --dataset$"
    ):
        read_recording(student, tmp_path / "clip.mat")
    with pytest.raises(DataError, match=r"clip\.csv: a plain table requires --rate, its samples per second$"):
        read_recording(student, tmp_path / "clip.csv")
    with pytest.raises(DataError, match="a folder, not a recording; give the files in it"):
        read_recording(student, tmp_path)


def test_torch_is_really_absent():
    command = [sys.executable, "-c", WITHOUT.replace("runpy.run_path", "import torch #")]
    assert "No module named 'torch'" in subprocess.run(command, capture_output=True, text=True, check=False).stderr
