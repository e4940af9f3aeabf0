"""Exports of students that answer with labels or values."""

import re

import numpy as np
import onnxruntime
import pytest
from sklearn.metrics import average_precision_score, mean_absolute_error
from window_targets import LABELS, VALUES, write_recipe

import kdcore
from kdcore_export.export import Request, export_student

VALIDATION = slice(36, 42)
"""Samples of the subject that validates."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run on labels and one on values."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for kind, answers in (("labels", LABELS), ("values", VALUES)):
            folder = tmp_path_factory.mktemp(kind)
            patch.setenv("KDCORE_RUNS", str(folder / "runs"))
            patch.chdir(folder)
            found[kind] = folder, kdcore.run(write_recipe(folder, kind, answers, seeds=[0], training={"epochs": 30}))
    return found


def answers(file, kind, folder):
    """Answers of an exported file for the validation windows."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    x = np.load(folder / "all.npz")["X"][VALIDATION]
    return session.run([{"labels": "probabilities", "values": "values"}[kind]], {"accelerometer": x})[0]


@pytest.mark.parametrize(
    ("kind", "true", "metric", "oracle", "factor"),
    [
        ("labels", LABELS, "mAP", lambda y, p: average_precision_score(y, p, average="macro"), 100),
        ("values", VALUES, "MAE", mean_absolute_error, 1),
    ],
)
def test_eight_bits_are_judged_by_the_targets_metric(runs, tmp_path, kind, true, metric, oracle, factor):
    folder, result = runs[kind]
    plain, small = tmp_path / "plain.onnx", tmp_path / "small.onnx"
    list(export_student(Request(str(result.folder), plain)))
    told = dict(line.split(None, 1) for line in export_student(Request(str(result.folder), small, int8=True)))
    before, after = (answers(file, kind, folder) for file in (plain, small))
    assert not np.array_equal(before, after)
    numbers = [float(each) for each in re.findall(r"-?\d+\.\d+", told["validation"])]
    y = true[VALIDATION]
    assert told["validation"].startswith(metric)
    assert "n 6, validation recordings of its run" in told["validation"]
    decimals = 1 if factor == 100 else 3
    assert numbers == pytest.approx([factor * oracle(y, after), factor * oracle(y, before)], abs=0.51 * 10**-decimals)
    if kind == "labels":
        same = ((before >= 0.5) == (after >= 0.5)).mean()
        assert told["agreement"].startswith(f"{same:.1%} of 12 label decisions unchanged (6 validation")
    else:
        gaps = np.abs(before - after)
        found = [float(each) for each in re.findall(r"by ([\d.e+-]+) on average, ([\d.e+-]+) at most", told["change"])[0]]
        assert found == pytest.approx([gaps[:, 0].mean(), gaps[:, 0].max()], rel=0.01)
        assert told["change"].startswith("a by ")
        assert ", b by " in told["change"]
