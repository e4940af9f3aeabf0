"""Finished networks in files as teachers: their outputs are PyTorch's, and nothing of them learns."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, save
from torch import nn

from kdcore import RecipeError, RunListener, dry_run, load_recipe
from kdcore_export.file_networks import ExportedNetwork, OnnxNetwork, TorchScriptNetwork

SHAPE, CLASSES = (3, 8), 4


class Net(nn.Module):
    """Logits of (B, 3, 8)."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(24, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.flatten(1))


pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")


@pytest.fixture(scope="module")
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net().eval()


@pytest.fixture(scope="module")
def batch():
    return torch.from_numpy(np.random.default_rng(0).normal(size=(5, *SHAPE)).astype(np.float32))


def write_onnx(net, path, batch="B", shape=SHAPE, softmax=False, external=""):
    """The same network as an ONNX graph, written by hand."""
    weight = numpy_helper.from_array(net.fc.weight.detach().numpy().T.copy(), "w")
    bias = numpy_helper.from_array(net.fc.bias.detach().numpy(), "b")
    if external:
        (path.parent / external).write_bytes(weight.raw_data)
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=external)
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "w", "b"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    outputs = ["probabilities"] if softmax else ["logits", "probabilities"]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, CLASSES]) for name in outputs],
        [weight, bias],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def write(kind, net, folder, batch):
    """A file of a kind, and what reads it."""
    path = folder / f"net.{kind}"
    if kind == "onnx":
        return OnnxNetwork, write_onnx(net, path)
    if kind == "torchscript":
        torch.jit.save(torch.jit.trace(net, batch), path)
        return TorchScriptNetwork, path
    program = torch.export.export(net, (batch,), dynamic_shapes=({0: torch.export.Dim("B")},))
    with open(path, "wb") as stream:
        torch.export.save(program, stream)
    return ExportedNetwork, path


@pytest.mark.parametrize("kind", ["onnx", "torchscript", "exported"])
def test_outputs_are_those_of_the_network_and_carry_no_gradient(kind, net, batch, tmp_path, monkeypatch):
    monkeypatch.setenv("KDCORE_TRUST_CODE", "1")
    make, path = write(kind, net, tmp_path, batch)
    network = make(file=path, num_classes=CLASSES, in_shape=SHAPE)
    found = network.train()(batch.clone().requires_grad_())
    torch.testing.assert_close(found, net(batch).detach(), rtol=1e-5, atol=1e-6)
    assert not found.requires_grad
    assert list(network.parameters()) == []
    assert [name for name, _ in network.named_modules()] == [""]
    torch.testing.assert_close(copy.deepcopy(network)(batch), found, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["torchscript", "exported"])
def test_files_with_code_need_trust(kind, net, batch, tmp_path, monkeypatch):
    monkeypatch.delenv("KDCORE_TRUST_CODE", raising=False)
    make, path = write(kind, net, tmp_path, batch)
    with pytest.raises(ValueError, match=r"the file contains code. .* set KDCORE_TRUST_CODE=1"):
        make(file=path, num_classes=CLASSES, in_shape=SHAPE)
    monkeypatch.setenv("KDCORE_TRUST_CODE", "1")
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not a readable"):
        make(file=path, num_classes=CLASSES, in_shape=SHAPE)


def test_axes_may_be_in_another_order_and_the_batch_may_be_one(net, batch, tmp_path):
    path = write_onnx(net, tmp_path / "net.onnx", batch=1)
    network = OnnxNetwork(file=path, num_classes=CLASSES, in_shape=(8, 3), order=(1, 0))
    torch.testing.assert_close(network(batch.transpose(1, 2)), net(batch).detach(), rtol=1e-5, atol=1e-6)


def test_probabilities_become_their_logarithms_and_are_never_taken_for_logits(net, batch, tmp_path):
    path = write_onnx(net, tmp_path / "net.onnx", softmax=True)
    expected = torch.log_softmax(net(batch).double(), dim=1).float()
    given = OnnxNetwork(file=path, num_classes=CLASSES, in_shape=SHAPE, gives="probabilities")
    torch.testing.assert_close(given(batch), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="looks like probabilities"):
        OnnxNetwork(file=path, num_classes=CLASSES, in_shape=SHAPE)(batch)
    logits = OnnxNetwork(file=write_onnx(net, tmp_path / "l.onnx"), num_classes=CLASSES, in_shape=SHAPE, gives="probabilities")
    with pytest.raises(ValueError, match="is not probabilities"):
        logits(batch)


@pytest.mark.parametrize(
    ("written", "options", "said"),
    [
        ({}, {"in_shape": (3, 9)}, r"reads \(B, 3, 8\), and the participant's input is \(B, 3, 9\)"),
        ({}, {"in_shape": (24,)}, r"reads \(B, 3, 8\)"),
        ({}, {"output": "scores"}, r"has no output 'scores' \(it has logits, probabilities\)"),
        ({}, {"order": (0, 2)}, "order must name the axes 0 to 1 once each"),
        ({"batch": 7}, {}, "reads batches of 7; export it with a batch of any size"),
    ],
)
def test_what_does_not_fit_is_refused(net, tmp_path, written, options, said):
    path = write_onnx(net, tmp_path / "net.onnx", **written)
    with pytest.raises(ValueError, match=said):
        OnnxNetwork(**{"file": path, "num_classes": CLASSES, "in_shape": SHAPE, **options})


def test_another_number_of_classes_is_refused(net, batch, tmp_path):
    path = write_onnx(net, tmp_path / "net.onnx")
    with pytest.raises(ValueError, match=r"has shape \(5, 4\), expected \(5, 6\); `classes` of the participant"):
        OnnxNetwork(file=path, num_classes=6, in_shape=SHAPE)(batch)


def test_tensors_outside_the_folder_are_refused(net, batch, tmp_path):
    (tmp_path / "in").mkdir()
    inside = write_onnx(net, tmp_path / "in" / "a.onnx", external="weights.bin")
    network = OnnxNetwork(file=inside, num_classes=CLASSES, in_shape=SHAPE)
    torch.testing.assert_close(network(batch), net(batch).detach(), rtol=1e-5, atol=1e-6)
    outside = write_onnx(net, tmp_path / "in" / "b.onnx", external="../weights.bin")
    with pytest.raises(ValueError, match="refused: a tensor is outside its folder"):
        OnnxNetwork(file=outside, num_classes=CLASSES, in_shape=SHAPE)
    linked = write_onnx(net, tmp_path / "in" / "c.onnx", external="link.bin")
    (tmp_path / "in" / "link.bin").unlink()
    (tmp_path / "in" / "link.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(ValueError, match="refused: a tensor is outside its folder"):
        OnnxNetwork(file=linked, num_classes=CLASSES, in_shape=SHAPE)


TEACHER = {"modality": "accelerometer", "encoder": {"name": "onnx", "file": "net.onnx"}, "freeze": ["*"]}


@pytest.mark.parametrize(
    ("change", "place", "said"),
    [
        ({"freeze": []}, "teachers.net.freeze", 'which cannot be trained (set freeze: ["*"])'),
        ({"taps": {"a": "fc"}}, "teachers.net.taps", "which has no modules to tap"),
        ({"weights": "net.onnx"}, "teachers.net.weights", "which has its own weights"),
        ({"encoder": {"name": "onnx", "file": "none.onnx"}}, "teachers.net.encoder.file", "there is no file"),
        ({}, "student.encoder", "so a student has nothing to learn"),
    ],
)
def test_what_a_finished_network_cannot_be_is_refused_at_validation(net, tmp_path, monkeypatch, change, place, said):
    monkeypatch.chdir(tmp_path)
    write_onnx(net, tmp_path / "net.onnx")
    small = {"modality": "accelerometer", "transforms": [{"name": "resample", "length": 8}], "encoder": "cnn1d"}
    student = small if change else {**small, "encoder": TEACHER["encoder"]}
    recipe = {
        "version": 1, "name": "finished", "data": {"dataset": "synthetic-motion", "protocol": "cross-subject"},
        "teachers": {"net": {**TEACHER, **change}}, "student": student, "losses": ["cross-entropy", "soft-target"],
    }  # fmt: skip
    with pytest.raises(RecipeError) as error:
        load_recipe(recipe)
    assert any(place in str(each) and said in str(each) for each in error.value.problems), str(error.value)


@pytest.mark.parametrize("kind", ["onnx", "torchscript", "exported"])
@pytest.mark.parametrize("named", [True, False])
def test_a_run_learns_from_a_file(net, batch, tmp_path, monkeypatch, kind, named):
    """Every term gives the student a gradient, the teacher has nothing to train, and its classes are matched by name."""
    monkeypatch.setenv("KDCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KDCORE_TRUST_CODE", "1")
    _, path = write(kind, net, tmp_path, batch)
    actions = ["wave", "punch", "sit down", "kick"]
    small = {"modality": "accelerometer", "transforms": [{"name": "resample", "length": 8}]}
    encoder = {"name": kind, "file": str(path)}
    classes = {"classes": actions[::-1]} if named else {}
    data = {"name": "synthetic-motion", "subjects": 2, "trials": 1, "actions": actions}
    recipe = {
        "version": 1,
        "name": "finished",
        "data": {"dataset": data, "protocol": "cross-subject"},
        "teachers": {"net": {**small, "freeze": ["*"], **classes, "encoder": encoder}},
        "student": {**small, "encoder": {"name": "cnn1d", "width": 8}},
        "losses": ["cross-entropy", "soft-target"],
        "training": {"epochs": 1},
        "engine": {"accelerator": "cpu"},
    }
    said = Lines()
    found = dry_run(recipe, callbacks=[said])
    assert found is not None
    assert found.parameters["net"] == found.trained["net"] == 0
    assert {each.term for each in found.terms} == {"cross-entropy", "soft-target"}
    assert all(each.gradient > 0 for each in found.terms)
    assert ("net: its logits were put in the order of the run's classes by name" in said.lines) == named
    assert any("its classes have no names" in line for line in said.lines) != named


class Lines(RunListener):
    """What a run says."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def test_outputs_are_kept_under_the_content_of_all_files(net, tmp_path):
    path = write_onnx(net, tmp_path / "a.onnx", external="weights.bin")
    first = OnnxNetwork(file=path, num_classes=CLASSES, in_shape=SHAPE)
    state = first.state_dict()
    (tmp_path / "weights.bin").write_bytes(np.zeros((24, CLASSES), dtype=np.float32).tobytes())
    second = OnnxNetwork(file=path, num_classes=CLASSES, in_shape=SHAPE)
    assert not torch.equal(first.digest, second.digest)
    with pytest.raises(RuntimeError, match="the file has changed since the run was made"):
        second.load_state_dict(state)
