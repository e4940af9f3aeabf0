"""Exported files against the students they were made of."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from saved import ALONE
from scipy.stats import binomtest

from kdcore import DataError, KdcoreError, Modality, Signal, UsageError, load_predictor, load_student
from kdcore.data.pipeline import Branch, Pipeline
from kdcore.deploy.saved_student import save_student
from kdcore.runs.outcome import read_outcome
from kdcore_export import formats
from kdcore_export.clips import Given, gather
from kdcore_export.export import Request, difference, export_student
from kdcore_export.onnx_student import load_onnx
from kdcore_signals.encoders import Cnn1d


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


@pytest.mark.parametrize(("kind", "rule"), [("onnx", "average"), ("torch-export", "max")])
def test_students_taken_together_are_one_file(students, tmp_path, kind, rule):
    file = tmp_path / "all"
    told = said(export_student(Request(str(students), file, kind, ensemble=rule)))
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
    list(export_student(Request(str(students / "a"), file, "torch-export")))
    extra = {"kdcore.json": ""}
    module = torch.export.load(file, extra_files=extra).module()
    assert json.loads(extra["kdcore.json"])["classes"] == ["wave", "punch", "sit down"]
    for samples in (2, 90):
        x = clip(samples)
        expected = load_student(students / "a").predict({"accelerometer": Signal(x, 50.0)})
        np.testing.assert_allclose(module(torch.from_numpy(x[None]))[1].detach(), expected, atol=1e-5)


def test_a_fixed_number_of_samples(students, tmp_path):
    file = tmp_path / "fixed.onnx"
    list(export_student(Request(str(students / "a"), file, samples=48)))
    run = session(file)
    assert run.get_inputs()[0].shape[1:] == [48, 3]
    x = clip(48)
    expected = load_student(students / "a").predict({"accelerometer": Signal(x, 50.0)})
    np.testing.assert_allclose(run.run(["probabilities"], {"accelerometer": x[None]})[0], expected, atol=1e-5)
    with pytest.raises(KdcoreError, match="has at least 5000 samples"):
        list(export_student(Request(str(students / "a"), tmp_path / "none.onnx", samples=5000)))
    assert not (tmp_path / "none.onnx").exists()


def test_raw_files_to_compare_on_and_a_folder_far_from_its_run(students, tmp_path):
    copy = shutil.copytree(students / "a", tmp_path / "copy")
    assert "16 generated signals" in said(export_student(Request(str(copy), tmp_path / "one.onnx")))["parity"]
    np.save(tmp_path / "clip.npy", clip(77))
    found = gather(load_student(copy), None, {"accelerometer": None}, Given([tmp_path / "clip.npy"]))
    assert (found.what, len(found.pieces)) == ("given recordings", 1)
    np.testing.assert_array_equal(found.pieces[0]["accelerometer"], clip(77)[None])


def test_a_table_with_decimal_commas_and_another_unit_to_compare_on(students, tmp_path):
    rows = "\n".join(";".join(f"{value:.6f}".replace(".", ",") for value in row) for row in clip(40) / 9.80665)
    (tmp_path / "clip.csv").write_text(f"x;y;z\n{rows}\n")
    given = Given([tmp_path / "clip.csv"], rate=50.0, units="g", decimal=",")
    found = gather(load_student(students / "a"), None, {"accelerometer": None}, given)
    np.testing.assert_allclose(found.pieces[0]["accelerometer"][0], clip(40), atol=1e-4)
    options = ["--check", tmp_path / "clip.csv", "--rate", "50", "--units", "g", "--decimal", ","]
    command = [sys.executable, "-m", "kdcore", "export", students / "a", "--output", tmp_path / "s.onnx", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert " on 1 given recordings\n" in done.stdout, done.stderr


@pytest.mark.parametrize("option", [{"rate": 50.0}, {"units": "g"}, {"decimal": ","}, {"dataset": "utd-mhad"}])
def test_how_to_read_recordings_requires_recordings(students, tmp_path, option):
    with pytest.raises(UsageError, match=f"^--{next(iter(option))} requires --check$"):
        list(export_student(Request(str(students / "a"), tmp_path / "s.onnx", check=Given(**option))))


def test_recordings_too_short_for_a_fixed_length_are_counted(students, tmp_path):
    for number, samples in enumerate((40, 60, 50, 45)):
        np.save(tmp_path / f"{number}.npy", clip(samples))
    given = Given([tmp_path / f"{number}.npy" for number in range(4)])
    told = said(export_student(Request(str(students / "a"), tmp_path / "s.onnx", samples=50, check=given)))
    assert told["parity"].endswith("on 2 given recordings")
    assert told["left"] == "out    2 of the given recordings, which are shorter than the file's input"


@pytest.mark.parametrize("kind", ["onnx", "torch-export"])
def test_a_file_that_answers_otherwise_is_not_written(students, tmp_path, monkeypatch, kind):
    from kdcore_export.graph import Graph

    right = Graph.forward
    monkeypatch.setattr(Graph, "forward", lambda self, *x: tuple(each + 3e-4 for each in right(self, *x)))
    before = tmp_path / ("student.onnx" if kind == "onnx" else "student.pt2")
    before.write_text("as it was")
    with pytest.raises(KdcoreError, match=r"differ from PyTorch.*by up to 3\.\de-04"):
        list(export_student(Request(str(students / "a"), before, kind)))
    assert before.read_text() == "as it was"
    assert list(tmp_path.iterdir()) == [before]


def test_a_difference_that_is_no_number_counts():
    table = np.zeros((1, 3))
    assert not difference([(table, table * np.nan)], [(table, table)]) <= 1e-4


def test_eight_bits(students, exported, tmp_path):
    _, told = exported()
    file, small = exported(int8=True)
    kinds = {node.op_type for node in onnx.load(file).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= kinds
    assert float(small["agreement"].split("%")[0]) >= 75
    assert "9 predictions unchanged (validation recordings of its run)" in small["agreement"]
    assert "float32" in small["validation"]
    assert "PyTorch" in small["accuracy"]
    assert told["parameters"] == small["parameters"]
    metadata = session(file).get_modelmeta().custom_metadata_map
    assert json.loads(metadata["kdcore.classes"]) == ["wave", "punch", "sit down"]
    with pytest.raises(KdcoreError, match="--int8 requires --format onnx"):
        list(export_student(Request(str(students / "a"), tmp_path / "x.pt2", int8=True)))


@pytest.mark.parametrize("name", ["a", "b"])
def test_every_layer_of_an_eight_bit_file_is_listed_with_what_became_of_it(students, exported, name):
    """By hand: weights of the network's layers, and the types that they have in the file."""
    file, _ = exported(name, int8=True)
    card = (file.parent / "README.md").read_text()
    layers = [line.split() for line in card.splitlines() if line.startswith("layer ")]
    encoder = load_student(students / name).model.encoder
    recurrent = [each for each in encoder.modules() if isinstance(each, torch.nn.LSTM)]
    others = [each for each in encoder.modules() if isinstance(each, torch.nn.Conv1d | torch.nn.Linear)]
    wanted = [each.weight.numel() for each in others]
    for each in recurrent:
        for depth in range(each.num_layers):
            wanted.append(sum(getattr(each, f"weight_{kind}_l{depth}").numel() for kind in ("ih", "hh")))
    assert sorted(int(line[3].replace(",", "")) for line in layers) == sorted(wanted)
    assert {line[-1] for line in layers} == {"int8"}
    stored = {each.name: each for each in onnx.load(file).graph.initializer}
    bits = [each for each in stored.values() if each.data_type == onnx.TensorProto.INT8 and np.prod(each.dims) >= 8]
    assert sum(int(np.prod(each.dims)) for each in bits) >= sum(wanted)
    assert ("DynamicQuantizeLSTM" in {node.op_type for node in onnx.load(file).graph.node}) == bool(recurrent)
    kept = [each for each in stored.values() if each.data_type == onnx.TensorProto.FLOAT and len(each.dims) >= 2]
    assert all(np.prod(each.dims) < 3 * 8 * 8 for each in kept), "a weight was left in floats"


def test_a_network_that_cannot_be_quantised_is_refused(tmp_path):
    """ONNX Runtime has no eight-bit GRU."""
    from kdcore_export.int8 import quantise

    torch.manual_seed(0)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = torch.nn.GRU(3, 16, batch_first=True)

        def forward(self, x):
            return self.encoder(x)[0]

    class Outer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.members = torch.nn.ModuleList([Network()])

        def forward(self, x):
            return self.members[0](x)

    program = torch.onnx.export(Outer().eval(), (torch.randn(2, 9, 3),), dynamo=True, verbose=False)
    model = program.model_proto
    formats._tidy(model.graph)
    onnx.save(model, tmp_path / "gru.onnx")
    with pytest.raises(KdcoreError, match=r"--int8: ONNX Runtime quantises 0% .*\(GRU\) in float32"):
        quantise(tmp_path / "gru.onnx", [])


@pytest.mark.parametrize(
    ("name", "asked", "format"),
    [("e.pt2", None, "torch-export"), ("e.onnx", None, "onnx"), ("e.onnx", "onnx", "onnx"), ("e.bin", "onnx", "onnx")],
)
def test_the_ending_decides_the_format(name, asked, format):
    assert formats.format_of(Path(name), asked) == format


@pytest.mark.parametrize(
    ("name", "asked", "said"),
    [
        ("e.pt2", "onnx", r"--format onnx is written as \.onnx, and \.pt2 is torch-export"),
        ("e.onnx", "torch-export", r"--format torch-export is written as \.pt2"),
        ("e.bin", None, r"the suffix must be \.onnx, \.pt2 or \.pte, or set --format"),
        ("e.onnx", "tflite", "unknown format 'tflite'"),
    ],
)
def test_a_format_that_contradicts_the_ending_is_refused(name, asked, said):
    with pytest.raises(KdcoreError, match=said):
        formats.format_of(Path(name), asked)


def test_a_file_is_what_its_ending_says(students, tmp_path):
    list(export_student(Request(str(students / "a"), tmp_path / "e.pt2", card=False)))
    assert zipfile.is_zipfile(tmp_path / "e.pt2")
    assert not (tmp_path / "README.md").exists()
    torch.export.load(tmp_path / "e.pt2")


@pytest.mark.parametrize("opset", [18, 20])
def test_the_operator_set_asked_for_is_the_one_written(students, tmp_path, opset):
    list(export_student(Request(str(students / "a"), tmp_path / "e.onnx", opset=opset, card=False)))
    imports = {each.domain: each.version for each in onnx.load(tmp_path / "e.onnx").opset_import}
    assert imports[""] == opset


def test_a_model_card_is_written_beside_the_file(trained, students, tmp_path):
    told = said(export_student(Request(str(students), tmp_path / "both.onnx")))
    assert told["card"] == str(tmp_path / "README.md")
    card = (tmp_path / "README.md").read_text()
    outcome = read_outcome(trained.runs[0] / "results" / "seed-0-distilled.npz")
    for name in "ab":
        right = int((outcome.probabilities[name].argmax(1) == outcome.labels).sum())
        n = len(outcome.labels)
        interval = binomtest(right, n).proportion_ci(0.95, method="wilson")
        row = f"| {name} | distilled | 0 | {right / n:.1%} | {interval.low:.1%} to {interval.high:.1%} | "
        assert row in card
        assert card.split(row)[1].splitlines()[0].endswith(f" | {n} |")
    for words in ("wave, punch, sit down", "train 1", "test 3", "Intended use", "Licence of the weights", "license: other"):
        assert words in card
    said(export_student(Request(str(students / "a"), tmp_path / "other.onnx")))
    assert (tmp_path / "README.md").read_text() == card
    assert "`other.onnx` classifies" in (tmp_path / "other.onnx.README.md").read_text()


def test_an_exported_file_predicts_like_its_student_without_torch(students, exported, tmp_path):
    file, _ = exported()
    x = clip(77)
    np.save(tmp_path / "clip.npy", x)
    expected = load_student(students / "a").predict(x, rate=50.0)
    np.testing.assert_allclose(load_onnx(file).predict(x), expected, atol=1e-5)
    np.testing.assert_allclose(load_onnx(file).predict([x, x[:40]])[:1], expected, atol=1e-5)
    code = ALONE.format(absent=("torch", "scipy", "mlflow"), plugins=())
    command = [sys.executable, "-c", code, "predict", str(file), str(tmp_path / "clip.npy"), "--top", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(f"{load_student(students / 'a').classes[expected.argmax()]} {expected.max():.3f}")
    (tmp_path / "bad.onnx").write_bytes(b"no")
    with pytest.raises(KdcoreError, match="not a readable ONNX file"):
        load_onnx(tmp_path / "bad.onnx")
    with pytest.raises(KdcoreError, match=r"reads 50 samples per second, not 25"):
        load_onnx(file).predict(x, rate=25.0)


def fixed_student(folder, window=None):
    """A student without a transform that changes the number of samples."""
    spec = Modality("accelerometer", ("time", "channel"), ("channel", "time"), "m/s^2", 50.0, ("x", "y", "z"))
    torch.manual_seed(0)
    told = {
        "name": "fixed",
        "classes": ["sit", "stand", "walk"],
        "in_shape": [3, 25],
        "encoder": {"name": "cnn1d", "width": 8, "depth": 2},
        "transforms": {"accelerometer": [], "joined": []},
        "recorded": {"accelerometer": {"shape": [25, 3], "dtype": "float32", "rate": 50.0}},
        "dataset": {"name": "synthetic-motion", "fingerprint": "", "options": {}},
        "window": window,
    }
    return save_student(folder, Pipeline([Branch(spec)]), Cnn1d(3, (3, 25), width=8, depth=2).eval(), told)


@pytest.mark.parametrize("window", [None, {"length": 0.5, "hop": 0.5}])
def test_a_file_that_reads_one_number_of_samples_says_so_and_refuses_others(tmp_path, window):
    file = tmp_path / "fixed.onnx"
    said(export_student(Request(str(fixed_student(tmp_path / "fixed", window)), file)))
    student, loaded = load_student(tmp_path / "fixed"), load_onnx(file)
    [told] = json.loads(onnxruntime.InferenceSession(str(file)).get_modelmeta().custom_metadata_map["kdcore.inputs"])
    assert told["samples"] == 25
    x = clip(77)
    expected = student.probabilities([{"accelerometer": Signal(x[:25], 50.0)}])
    np.testing.assert_allclose(loaded.probabilities([{"accelerometer": Signal(x[:25], 50.0)}]), expected, atol=1e-5)
    for count in (24, 26, 27, 77):
        piece = {"accelerometer": Signal(x[:count], 50.0)}
        if count == 26 and window:  # rounding; the first samples are meant
            np.testing.assert_allclose(loaded.probabilities([piece]), expected, atol=1e-5)
            continue
        with pytest.raises(DataError, match=f"reads 25 samples, but the recording has {count}"):
            loaded.probabilities([piece])


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

    monkeypatch.setattr(formats.torch.onnx, "export", refuse)
    with pytest.raises(KdcoreError, match=r"cannot be exported to ONNX: ValueError: no operator for cummax$"):
        list(export_student(Request(str(students / "a"), tmp_path / "x.onnx")))
    with pytest.raises(KdcoreError, match="no such folder"):
        list(export_student(Request(str(students / "a"), tmp_path / "nowhere" / "x.onnx")))


def test_the_ensemble_answers_as_its_folder_does(students):
    x = {"accelerometer": Signal(clip(60), 50.0)}
    assert load_predictor(students).predict(x).sum() == pytest.approx(1, abs=1e-5)


def test_evaluating_a_run_again_says_what_it_said(trained):
    from kdcore.runs.evaluation import evaluate_run

    outcome = read_outcome(trained.runs[0] / "results" / "seed-0-distilled.npz")
    lines = dict(line.removeprefix("seed-0 ").split(": ") for line in evaluate_run(str(trained.runs[0])))
    assert sorted(lines) == ["a", "b", "students (average)", "students (max)"]
    for name, probabilities in outcome.probabilities.items():
        assert f"accuracy {100 * (probabilities.argmax(1) == outcome.labels).mean():.1f} %" in lines[name]
        assert lines[name].endswith(f"n {len(outcome.labels)}")
    mean = np.mean(list(outcome.probabilities.values()), axis=0)
    assert f"accuracy {100 * (mean.argmax(1) == outcome.labels).mean():.1f} %" in lines["students (average)"]
