"""Exported files against the students they were made of."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from kdcore import KdcoreError, Signal, load_predictor, load_student
from kdcore_export import onnx_file
from kdcore_export.clips import gather
from kdcore_export.exporting import Request, difference, write


def clip(samples, seed=0):
    return np.random.default_rng(seed).normal(size=(samples, 3)).cumsum(0).astype(np.float32)


def said(lines):
    return dict(line.split(None, 1) for line in lines)


def session(file):
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", ["a", "b"])
def test_an_onnx_file_answers_as_the_student_for_recordings_of_any_length(students, exported, name):
    file, told = exported(name)
    assert "9 test recordings of its run" in told["parity"]
    student, run = load_student(students / name), session(file)
    for samples in (2, 33, 80, 400):
        x = clip(samples, samples)
        logits, probabilities = run.run(["logits", "probabilities"], {"accelerometer": x[None]})
        np.testing.assert_allclose(probabilities, student.predict({"accelerometer": Signal(x, 50.0)}), atol=1e-5)
        np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True), probabilities, atol=1e-5)
    batch = np.stack([clip(40, seed) for seed in range(5)])
    together = run.run(["probabilities"], {"accelerometer": batch})[0]
    alone = [run.run(["probabilities"], {"accelerometer": each[None]})[0][0] for each in batch]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_file_says_what_its_users_must_know(exported):
    file, _ = exported()
    told = session(file).get_modelmeta().custom_metadata_map
    assert json.loads(told["kdcore.classes"]) == ["wave", "punch", "sit down"]
    [given] = json.loads(told["kdcore.inputs"])
    assert (given["name"], given["rate"], given["units"]) == ("accelerometer", 50.0, "m/s^2")
    assert (given["axes"], given["channels"], given["samples"]) == (["time", "channel"], ["x", "y", "z"], None)
    onnx.checker.check_model(str(file), full_check=True)


@pytest.mark.parametrize("rule", ["average", "max"])
@pytest.mark.parametrize("kind", ["onnx", "torch-export"])
def test_students_taken_together_are_one_file(students, tmp_path, kind, rule):
    file = tmp_path / "all"
    told = said(write(Request(str(students), file, kind, ensemble=rule)))
    alone = [load_student(students / name) for name in "ab"]
    x = clip(57, 1)
    answers = np.stack([each.predict({"accelerometer": Signal(x, 50.0)})[0] for each in alone]).astype(np.float64)
    expected = answers.mean(0) if rule == "average" else answers.max(0) / answers.max(0).sum()
    if kind == "onnx":
        found = session(file).run(["probabilities"], {"accelerometer": x[None]})[0][0]
    else:
        found = torch.export.load(file).module()(torch.from_numpy(x[None]))[1][0].detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    count = sum(each.numel() for student in alone for each in student.model.encoder.parameters())
    assert int(told["parameters"].replace(",", "")) == count


def test_a_torch_export_file_needs_nothing_of_kdcore(students, tmp_path):
    file = tmp_path / "student.pt2"
    list(write(Request(str(students / "a"), file, "torch-export")))
    extra = {"kdcore.json": ""}
    module = torch.export.load(file, extra_files=extra).module()
    assert json.loads(extra["kdcore.json"])["classes"] == ["wave", "punch", "sit down"]
    for samples in (2, 90):
        x = clip(samples)
        expected = load_student(students / "a").predict({"accelerometer": Signal(x, 50.0)})
        np.testing.assert_allclose(module(torch.from_numpy(x[None]))[1].detach(), expected, atol=1e-5)


def test_a_fixed_number_of_samples(students, tmp_path):
    file = tmp_path / "fixed.onnx"
    list(write(Request(str(students / "a"), file, samples=48)))
    run = session(file)
    assert run.get_inputs()[0].shape[1:] == [48, 3]
    x = clip(48)
    expected = load_student(students / "a").predict({"accelerometer": Signal(x, 50.0)})
    np.testing.assert_allclose(run.run(["probabilities"], {"accelerometer": x[None]})[0], expected, atol=1e-5)
    with pytest.raises(KdcoreError, match="has 5000 samples"):
        list(write(Request(str(students / "a"), tmp_path / "none.onnx", samples=5000)))
    assert not (tmp_path / "none.onnx").exists()


def test_raw_files_to_compare_on_and_a_folder_far_from_its_run(students, tmp_path):
    copy = shutil.copytree(students / "a", tmp_path / "copy")
    assert "16 generated signals" in said(write(Request(str(copy), tmp_path / "one.onnx")))["parity"]
    np.save(tmp_path / "clip.npy", clip(77))
    found = gather(load_student(copy), copy, (tmp_path / "clip.npy",))
    assert (found.what, len(found.pieces)) == ("1 given recordings", 1)
    np.testing.assert_array_equal(found.pieces[0]["accelerometer"], clip(77)[None])


@pytest.mark.parametrize("kind", ["onnx", "torch-export"])
def test_a_file_that_answers_otherwise_is_not_written(students, tmp_path, monkeypatch, kind):
    from kdcore_export.graph import Graph

    right = Graph.forward
    monkeypatch.setattr(Graph, "forward", lambda self, *x: tuple(each + 3e-4 for each in right(self, *x)))
    before = tmp_path / "student.onnx"
    before.write_text("as it was")
    with pytest.raises(KdcoreError, match=r"otherwise than PyTorch .*by up to 3\.\de-04"):
        list(write(Request(str(students / "a"), before, kind)))
    assert before.read_text() == "as it was"
    assert [path.name for path in tmp_path.iterdir()] == ["student.onnx"]


def test_a_difference_that_is_no_number_counts():
    table = np.zeros((1, 3))
    assert not difference([(table, table * np.nan)], [(table, table)]) <= 1e-4


def test_eight_bits(students, exported, tmp_path):
    _, told = exported()
    file, small = exported(int8=True)
    kinds = {node.op_type for node in onnx.load(file).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= kinds
    weights = {each.name: each.data_type for each in onnx.load(file).graph.initializer if "weight" in each.name}
    assert onnx.TensorProto.INT8 in weights.values()
    assert float(small["int8"].split("%")[0]) >= 75
    assert "PyTorch" in small["accuracy"]
    assert told["parameters"] == small["parameters"]
    metadata = session(file).get_modelmeta().custom_metadata_map
    assert json.loads(metadata["kdcore.classes"]) == ["wave", "punch", "sit down"]
    file, recurrent = exported("b", int8=True)
    assert "DynamicQuantizeLSTM" in {node.op_type for node in onnx.load(file).graph.node}
    assert float(recurrent["int8"].split("%")[0]) >= 75
    with pytest.raises(KdcoreError, match="int8 is for"):
        list(write(Request(str(students / "a"), tmp_path / "x.pt2", "torch-export", int8=True)))


def test_preprocessing_stays_in_floats(exported):
    graph = onnx.load(exported(int8=True)[0]).graph
    made_by = {output: node for node in graph.node for output in node.output}
    first = next(node for node in graph.node if node.op_type == "Conv")
    seen, todo = [], [made_by[first.input[0]]]
    while todo:
        node = todo.pop()
        seen.append(node.op_type)
        todo += [made_by[name] for name in node.input if name in made_by]
    assert seen.count("QuantizeLinear") == 1


def test_what_cannot_be_put_into_onnx_is_said_in_a_line(students, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("long story") from ValueError("no operator for cummax\nand a page of advice")

    monkeypatch.setattr(onnx_file.torch.onnx, "export", refuse)
    with pytest.raises(KdcoreError, match=r"cannot be put into ONNX: ValueError: no operator for cummax$"):
        list(write(Request(str(students / "a"), tmp_path / "x.onnx")))
    with pytest.raises(KdcoreError, match="no such folder"):
        list(write(Request(str(students / "a"), tmp_path / "nowhere" / "x.onnx")))


def test_the_ensemble_answers_as_its_folder_does(students):
    x = {"accelerometer": Signal(clip(60), 50.0)}
    assert load_predictor(students).predict(x).sum() == pytest.approx(1, abs=1e-5)


def test_evaluating_a_run_again_says_what_it_said(trained):
    from kdcore.runs.evaluation import evaluate_run
    from kdcore.runs.outcome import read_outcome

    outcome = read_outcome(trained.runs[0] / "results" / "seed-0-distilled.npz")
    lines = dict(line.removeprefix("seed-0 ").split(": ") for line in evaluate_run(str(trained.runs[0])))
    assert sorted(lines) == ["a", "b", "students (average)", "students (max)"]
    for name, probabilities in outcome.probabilities.items():
        assert f"accuracy {(probabilities.argmax(1) == outcome.labels).mean():.4f}" in lines[name]
    mean = np.mean(list(outcome.probabilities.values()), axis=0)
    assert f"accuracy {(mean.argmax(1) == outcome.labels).mean():.4f}" in lines["students (average)"]
