"""ExecuTorch programs against the students they were made of; most need the package, which is an extra."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from saved import CLASSES, saved_student, walk

from kdcore import KdcoreError, Target, UsageError, load_student
from kdcore_export import export
from kdcore_export.export import Request, export_student
from kdcore_export.formats import format_of

installed = pytest.mark.skipif(importlib.util.find_spec("executorch") is None, reason="executorch is not installed")

KINDS = {
    "classes": {},
    "labels": {"target": asdict(Target("labels"))},
    "values": {"target": asdict(Target("values", ("bpm", "", "m"), (60.0, 0.0, 1.0), (5.0, 1.0, 2.0)))},
}


def test_the_package_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "executorch", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    folder = saved_student(tmp_path / "s")
    with pytest.raises(UsageError, match=r"requires the package executorch: pip install 'kdcore\[executorch\]'"):
        list(export_student(Request(str(folder), tmp_path / "s.pte", samples=60)))
    assert not (tmp_path / "s.pte").exists()


def test_the_ending_stands_for_the_format(tmp_path, monkeypatch):
    assert format_of(Path("student.pte"), None) == "executorch"
    with pytest.raises(UsageError, match=r"--format executorch is written as \.pte"):
        format_of(Path("student.onnx"), "executorch")
    monkeypatch.setattr(export, "refuse_missing", lambda: None)
    folder = saved_student(tmp_path / "s")
    for option, told in (("--int8", {"int8": True}), ("--opset", {"opset": 18})):
        with pytest.raises(UsageError, match=f"{option} requires --format onnx"):
            list(export_student(Request(str(folder), tmp_path / "s.pte", samples=60, **told)))


def test_recordings_have_one_length(tmp_path, monkeypatch):
    """That of the student's windows, or the one that is asked for."""
    monkeypatch.setattr(export, "refuse_missing", lambda: None)
    folder = saved_student(tmp_path / "s")
    with pytest.raises(KdcoreError, match="recordings have one length; set it with --samples N; those of training had 60"):
        list(export_student(Request(str(folder), tmp_path / "s.pte")))
    windows = saved_student(tmp_path / "w", window={"length": 1.0, "hop": 0.5})
    graph = export.Graph(load_student(windows), fixed=True)
    assert graph.samples == {"accelerometer": 50}
    assert export.Graph(load_student(windows)).samples == {"accelerometer": None}


@installed
@pytest.mark.parametrize("kind", KINDS)
def test_a_program_answers_as_its_student(tmp_path, kind):
    from executorch.runtime import Runtime

    folder, file = saved_student(tmp_path / "s", **KINDS[kind]), tmp_path / "s.pte"
    told = dict(line.split(None, 1) for line in export_student(Request(str(folder), file, samples=60)))
    assert "generated signals" in told["parity"]
    student = load_student(folder)
    program = Runtime.get().load_program(file)
    method = program.load_method("forward")
    for seed in range(5):
        x = walk(60, seed=seed)
        logits, answers = (each.numpy().copy() for each in method.execute([torch.from_numpy(x)[None]]))
        np.testing.assert_allclose(answers[0], student.predict(x)[0], rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            np.testing.assert_allclose(logits, student(student.preprocess(x)).numpy(), rtol=1e-4, atol=1e-5)
    [text] = program.load_method("kdcore").execute([])
    facts = json.loads(text)
    assert facts["classes"] == CLASSES
    assert facts["batch"] == 1
    assert facts["inputs"][0]["samples"] == 60
    assert facts.get("target", {}).get("kind", "classes") == kind
    assert "| 1, time, channel |" in (tmp_path / "README.md").read_text()


@installed
def test_a_program_that_answers_otherwise_is_not_written(tmp_path, monkeypatch):
    run = export.save

    def wrong(*options):
        right = run(*options)
        return lambda piece: tuple(each + 0.01 for each in right(piece))

    monkeypatch.setattr(export, "save", wrong)
    folder = saved_student(tmp_path / "s")
    with pytest.raises(KdcoreError, match="differ from PyTorch's"):
        list(export_student(Request(str(folder), tmp_path / "s.pte", samples=60)))
    assert not (tmp_path / "s.pte").exists()


@installed
def test_the_example_runs_a_program(tmp_path):
    folder, file, x = saved_student(tmp_path / "s"), tmp_path / "s.pte", walk(80)
    list(export_student(Request(str(folder), file, samples=60, card=False)))
    np.save(tmp_path / "x.npy", x[:60])
    np.save(tmp_path / "long.npy", x)
    script = Path(__file__).parents[3] / "docs/examples/executorch/classify.py"
    shown, said = (
        subprocess.run([sys.executable, script, file, *given], capture_output=True, text=True, check=True).stdout
        for given in ((), (tmp_path / "x.npy",))
    )
    done = subprocess.run([sys.executable, script, file, tmp_path / "long.npy"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "long.npy: the program reads 60 samples, the recording has 80" in done.stderr
    assert shown == "accelerometer: 60 samples at 50 Hz, m/s^2, x, y, z\n"
    lines = dict(line.rsplit(" ", 1) for line in said.splitlines())
    probabilities = load_student(folder).predict(x[:60])[0]
    assert {name: float(p) for name, p in lines.items()} == pytest.approx(
        dict(zip(CLASSES, probabilities.tolist(), strict=True)), abs=6e-4
    )
