"""Losses called with tensors, against formulas written out."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location

import pytest
import torch
from pages import CHECKOUT
from torch import nn
from torch.nn import functional as F

import kdcore
from kdcore import DistillationLoss, Needs, Outputs, PluginError, RecipeError, TensorLoss, UsageError
from kdcore.plugin.manager import found_plugins

B, C = 8, 5
LOSSES = [
    entry
    for entry in found_plugins().registry.entries("loss")
    if found_plugins().plugins[entry.plugin].distribution == "kdcore"
]


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(B, C, generator=generator, dtype=torch.float64, requires_grad=True)
    return student, torch.randn(B, C, generator=generator, dtype=torch.float64), torch.arange(B) % C


@pytest.fixture(scope="module")
def pages():
    """The module that writes the components' pages."""
    pytest.importorskip("mkdocs")
    spec = spec_from_file_location("components_pages", CHECKOUT / "docs" / "components.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_cross_entropy(logits):
    student, _, labels = logits
    torch.testing.assert_close(kdcore.loss("cross-entropy")(student, labels=labels), F.cross_entropy(student, labels))


def test_soft_targets(logits):
    student, teacher, _ = logits
    p, q = (teacher / 3).softmax(-1), (student / 3).softmax(-1)
    expected = 9 * sum((p[b, c] * (p[b, c] / q[b, c]).log()) for b in range(B) for c in range(C)) / B
    torch.testing.assert_close(kdcore.loss("soft-target", temperature=3.0)(student, teacher), expected)


def test_dist(logits):
    """DIST (Huang et al. 2022): one minus the correlation of rows, and of columns, of the probabilities."""
    student, teacher, _ = logits
    p, q = student.softmax(-1), teacher.softmax(-1)

    def correlation(a, b):
        a, b = a - a.mean(), b - b.mean()
        return (a * b).sum() / (a.norm() * b.norm())

    between = sum(1 - correlation(p[b], q[b]) for b in range(B)) / B
    within = sum(1 - correlation(p[:, c], q[:, c]) for c in range(C)) / C
    found = kdcore.loss("dist", beta=2.0, gamma=0.5, temperature=1.0)(student, teacher)
    torch.testing.assert_close(found, 2.0 * between + 0.5 * within, rtol=1e-5, atol=1e-7)


def test_several_teachers_have_names(logits):
    student, teacher, _ = logits
    other = teacher.flip(0)
    one, two = (kdcore.loss("logits")(student, each) for each in (teacher, other))
    torch.testing.assert_close(kdcore.loss("logits")(student, {"a": teacher, "b": other}), (one + two) / 2)


def test_the_student_gets_a_gradient_and_the_teacher_none(logits):
    student, teacher, labels = logits
    teacher.requires_grad_()
    kdcore.loss("dkd")(student, teacher, labels).backward()
    assert student.grad is not None
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_features_are_given_as_outputs(logits):
    student, teacher, _ = logits
    f, g = torch.randn(B, 6, requires_grad=True), torch.randn(B, 6)

    def gram(x):
        return F.normalize(x @ x.T, dim=1)

    found = kdcore.loss("similarity-preserving")(Outputs(student, {"features": f}), Outputs(teacher, {"features": g}))
    torch.testing.assert_close(found, ((gram(f) - gram(g)) ** 2).sum() / B**2)


def test_a_loss_with_parameters_is_set_up_before_the_optimizer(logits):
    student, teacher, _ = logits
    mine, theirs = Outputs(student, {"features": torch.randn(B, 6)}), Outputs(teacher, {"features": torch.randn(B, 9)})
    loss = kdcore.loss("fitnet")
    for _ in range(2):  # the second call must not train what the first made
        with pytest.raises(UsageError, match=r"creates parameters .* call setup"):
            loss(mine, theirs)
    assert list(loss.parameters()) == []
    assert loss.setup(mine, theirs) is loss
    assert {tuple(each.shape) for each in loss.parameters()} >= {(9, 6)}
    before = [each.clone() for each in loss.parameters()]
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
    loss(mine, theirs).backward()
    optimizer.step()
    assert any(not torch.equal(old, new) for old, new in zip(before, loss.parameters(), strict=True))


def test_a_whole_loop_is_short():
    torch.manual_seed(0)
    student, teacher, loss = nn.Linear(4, 3), nn.Linear(4, 3), kdcore.loss("dist")
    optimizer, x = torch.optim.SGD(student.parameters(), lr=1.0), torch.randn(32, 4)
    values = []
    for _ in range(50):
        optimizer.zero_grad()
        value = loss(student(x), teacher(x))
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.1 * values[0]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("dist", {}, "'dist' needs teacher="),
        ("dkd", {"teacher": torch.zeros(B, C)}, "'dkd' needs labels="),
        ("average", {"teacher": torch.zeros(B, C)}, r"teacher=\{name: outputs\} of at least 2"),
        ("mutual", {}, "needs peers="),
        ("fitnet", {"teacher": torch.zeros(B, C)}, "the student's features 'features' and .*kdcore.Outputs"),
        ("semantic-preserving", {"labels": torch.zeros(B, dtype=torch.long)}, "class_embeddings="),
        ("dist", {"teacher": torch.zeros(B - 1, C)}, "teacher: 7 samples, but the student has 8"),
        ("cross-entropy", {"labels": torch.zeros(3, dtype=torch.long)}, "labels: 3 samples"),
        ("dist", {"teacher": torch.zeros(B)}, r"logits are a tensor \(B, classes\), not \(8,\)"),
    ],
)
def test_what_is_missing_is_said(name, arguments, message):
    with pytest.raises(UsageError, match=message):
        kdcore.loss(name)(torch.zeros(B, C), **arguments)


def test_names_and_options_are_checked_as_in_recipes():
    with pytest.raises(PluginError, match="no loss 'dits'; did you mean 'dist'"):
        kdcore.loss("dits")
    with pytest.raises(RecipeError, match=r"the loss 'soft-target' has no option 'temprature' \(did you mean 'temperature'"):
        kdcore.loss("soft-target", temprature=2)
    with pytest.raises(RecipeError, match="temperature: must be"):
        kdcore.loss("soft-target", temperature="hot")
    assert kdcore.loss("losses/dist").needs.teachers == 1


def test_a_loss_that_runs_networks_is_refused_on_tensors(logits):
    student, teacher, _ = logits
    with pytest.raises(UsageError, match=r"the loss 'sskd' runs networks: use it in kdcore\.distil or a recipe"):
        kdcore.loss("sskd")(student, teacher)


class PeerFeatures(DistillationLoss):
    needs = Needs(peers=1, peer_taps=("features",))

    def forward(self, ctx):
        return sum((ctx.student.logits.mean() - each.features["features"].mean()).square() for each in ctx.peers.values())


def test_features_and_samples_of_peers_are_checked(logits):
    student, other, _ = logits
    loss = TensorLoss(PeerFeatures())
    with pytest.raises(UsageError, match=r"needs the features 'features' of one; features are given as"):
        loss(student, peers={"one": other})
    with pytest.raises(UsageError, match="one: 2 samples, but the student has"):
        loss(student, peers={"one": Outputs(other[:2], {"features": other})})
    assert loss(student, peers={"one": Outputs(other, {"features": other})}) > 0


@pytest.mark.parametrize("entry", LOSSES, ids=lambda entry: entry.qualified)
def test_every_loss_has_a_call_on_its_page_that_gives_a_gradient(pages, entry):
    if entry.name == "sskd":
        assert "[runs networks](../losses.md#run-networks-on-other-inputs)" in pages.section(entry)
        return
    text = pages.usage(entry)
    assert f'kdcore.loss("{entry.name}"' in text
    assert text in pages.section(entry)
    *before, call = text.splitlines()
    known: dict[str, object] = {}
    torch.manual_seed(0)
    exec("\n".join([*before, f"value = {call}"]), known)
    value = known["value"]
    assert isinstance(value, torch.Tensor)
    assert value.shape == ()
    assert torch.isfinite(value)
    assert value.requires_grad
