"""Class attention transfer by loops in float64, and in training by a loop written by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import kdcore
from kdcore import Batch, Classifier, Example, LossContext, Outputs, RecipeError, UsageError
from kdcore_losses.cat_kd import ClassAttention

B, K = 3, 4


def outputs(shape, seed, learns=False):
    """Outputs of a network that averages a map (C, …) and classifies the mean."""
    draw = np.random.default_rng(seed)
    features, weight, bias = draw.normal(size=(B, *shape)), draw.normal(size=(K, shape[0])), draw.normal(size=K)
    pooled = features.reshape(B, shape[0], -1).mean(axis=2)
    found = [torch.from_numpy(x) for x in (pooled @ weight.T + bias, features, weight, bias)]
    logits, features, weight, bias = (x.requires_grad_(learns) for x in found)
    return Outputs(logits, {"features": features}, classifier=Classifier(weight, bias))


def context(student, teacher):
    return LossContext(student, {"teacher": teacher}, Batch(torch.arange(B), {}, None))


def built(loss, ctx):
    loss.setup(Example(ctx.student.detach(), dict(ctx.teachers), K))
    return loss


def windows(length, size):
    """The stretches that adaptive pooling of `length` entries to `size` averages."""
    return [(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]


def maps(found, size):
    """Class activation maps, position by position, then pooled: (B, K, size, …)."""
    features, weight = found.features["features"].detach().numpy(), found.classifier.weight.detach().numpy()
    positions = features.shape[2:]
    each = np.zeros((B, K, *positions))
    for b, k, c in np.ndindex(B, K, features.shape[1]):
        each[b, k] += weight[k, c] * features[b, c]
    pooled = np.zeros((B, K, *[size] * len(positions)))
    for at in np.ndindex(pooled.shape[2:]):
        inside = tuple(slice(*windows(length, size)[i]) for length, i in zip(positions, at, strict=True))
        pooled[(..., *at)] = each[(..., *inside)].reshape(B, K, -1).mean(axis=2)
    return pooled.reshape(B, K, -1)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize(("student", "teacher", "size"), [((5, 6, 7), (3, 4, 4), 2), ((5, 9), (3, 4), 3), ((2, 3), (4, 2), 5)])
def test_it_compares_pooled_class_activation_maps(student, teacher, size, normalise):
    ctx = context(outputs(student, 0), outputs(teacher, 1))
    one, other = maps(ctx.student, size), maps(ctx.teachers["teacher"], size)
    total = 0.0
    for b, k in np.ndindex(B, K):
        s, t = one[b, k], other[b, k]
        if normalise:
            s, t = s / math.sqrt((s**2).sum()), t / math.sqrt((t**2).sum())
        total += ((s - t) ** 2).sum() / s.size / K / B
    assert built(ClassAttention(size=size, normalise=normalise), ctx)(ctx).item() == pytest.approx(total, rel=1e-10)


def test_surplus_axes_are_averaged():
    student, teacher = outputs((5, 6), 0), outputs((3, 6, 4), 1)
    ctx = context(student, teacher)
    flat = Outputs(teacher.logits, {"features": teacher.features["features"].mean(dim=3)}, classifier=teacher.classifier)
    wanted = np.mean((maps(student, 2) - maps(flat, 2)) ** 2)
    assert built(ClassAttention(), ctx)(ctx).item() == pytest.approx(wanted, rel=1e-10)


def test_maps_of_one_position_are_logits_without_bias():
    ctx = context(outputs((5, 6), 0), outputs((3, 7), 1))
    own, theirs = (each.logits - each.classifier.bias for each in (ctx.student, ctx.teachers["teacher"]))
    assert ClassAttention(size=1)(ctx).item() == pytest.approx(F.mse_loss(own, theirs).item(), rel=1e-10)


def test_the_gradient_reaches_map_and_classifier():
    ctx, loss = context(outputs((2, 4, 3), 0, learns=True), outputs((3, 2, 2), 1)), ClassAttention()

    def of(features, weight):
        classifier = Classifier(weight, ctx.student.classifier.bias)
        return loss(
            context(Outputs(ctx.student.logits, {"features": features}, classifier=classifier), ctx.teachers["teacher"])
        )

    assert torch.autograd.gradcheck(of, (ctx.student.features["features"], ctx.student.classifier.weight))


def test_other_taps_are_refused():
    good = outputs((3, 5), 1)
    activated = Outputs(good.logits, {"features": good.features["features"].relu()}, classifier=good.classifier)
    with pytest.raises(ValueError, match=r"logits of the student are not those of .* tap 'features', \(3, 3, 5\); tap the"):
        built(ClassAttention(), context(activated, good))
    with pytest.raises(ValueError, match="logits of teacher are not"):
        built(ClassAttention(), context(good, activated))
    wider = Outputs(good.logits, {"features": torch.zeros(B, 7, 5).double()}, classifier=good.classifier)
    with pytest.raises(ValueError, match="logits of the student are not"):
        built(ClassAttention(), context(wider, good))
    with pytest.raises(ValueError, match="maps of each class, but the student has 4 classes and teacher 1"):
        built(ClassAttention(), context(good, outputs((3, 5), 0).of_classes(torch.tensor([2]))))
    with pytest.raises(ValueError, match=r"compares positions, but the tap 'features' of the student, \(3, 3\), has none"):
        built(ClassAttention(), context(outputs((3,), 0), good))


def test_tensors_need_classifiers():
    good = outputs((3, 5), 1)
    bare = Outputs(good.logits, good.features)
    with pytest.raises(UsageError, match=r"'cat-kd' needs classifiers, kdcore.Outputs\(…, classifier=kdcore.Classifier"):
        kdcore.loss("cat-kd")(bare, good)
    assert kdcore.loss("cat-kd")(good, outputs((2, 6), 0)).item() > 0


class Net(nn.Module):
    def __init__(self, width, bias=True, twice=False):
        super().__init__()
        self.conv, self.fc = nn.Conv1d(2, width, 3, padding=1), nn.Linear(width, K, bias=bias)
        self.unused, self.twice = nn.Linear(width, K), twice

    def forward(self, x):
        z = self.fc(self.conv(x).mean(dim=2))
        return 2 * z if self.twice else z


def data():
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(24, 2, 10, generator=draw), torch.arange(24) % K
    return DataLoader(TensorDataset(x, y), batch_size=8)


def distilled(student, teacher, loader, **options):
    return kdcore.distil(
        student, teacher, loader, ["cross-entropy", ({"name": "cat-kd", "teacher_tap": "conv", "student_tap": "conv"}, 3.0)],
        taps={"student": ["conv"], "teacher": ["conv"]}, device="cpu", progress=False, **options,
    )  # fmt: skip


@pytest.mark.parametrize("bias", [True, False])
def test_training_is_the_loop_written_by_hand(bias):
    torch.manual_seed(0)
    student, teacher, by_hand, loader = Net(5, bias), Net(7), Net(5, bias), data()
    by_hand.load_state_dict(student.state_dict())
    before = {name: each.clone() for name, each in teacher.state_dict().items()}
    distilled(student, teacher, loader, epochs=2, optimizer={"name": "sgd", "lr": 0.1})
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1)
    for _ in range(2):
        for x, y in loader:
            own = F.conv1d(F.adaptive_avg_pool1d(by_hand.conv(x), 2), by_hand.fc.weight[:, :, None])
            theirs = F.conv1d(F.adaptive_avg_pool1d(teacher.conv(x), 2), teacher.fc.weight[:, :, None]).detach()
            optimizer.zero_grad()
            (F.cross_entropy(by_hand(x), y) + 3 * F.mse_loss(own, theirs)).backward()
            optimizer.step()
    for name, each in student.state_dict().items():
        torch.testing.assert_close(each, by_hand.state_dict()[name], rtol=1e-4, atol=1e-5)
    assert all(torch.equal(each, before[name]) for name, each in teacher.state_dict().items())


def test_networks_without_a_linear_classifier_are_refused():
    with pytest.raises(RecipeError, match="'cat-kd' reads the classifier of teacher, but no linear layer of its encoder gives"):
        distilled(Net(5), Net(7, twice=True), data())
    with pytest.raises(RecipeError, match="reads the classifier of student, but no linear layer"):
        distilled(Net(5, twice=True), Net(7), data())


def test_classes_that_a_teacher_has_in_another_order_are_put_in_the_runs():
    torch.manual_seed(0)
    net = Net(5)
    teacher = kdcore.Participant("teacher", net, {"features": "conv"}, columns=[2, -1, 0])
    x = torch.randn(B, 2, 10)
    assert teacher.classifier is None
    assert teacher.find_classifier(x) is net.fc
    assert teacher.classifier is not None
    found = teacher(x)
    weight, bias = teacher.classifier.weight, teacher.classifier.bias
    assert bias[1] == found.logits[0, 1] == -torch.inf
    torch.testing.assert_close(found.features["features"].mean(dim=2) @ weight.T + bias, found.logits)
    known = Outputs(found.logits, found.features, classifier=teacher.classifier).of_classes(torch.tensor([0, 2]))
    own = outputs((4, 6), 0).of_classes(torch.tensor([0, 2]))
    ctx = context(Outputs(own.logits.float(), own.features, classifier=own.classifier), known.detach())
    theirs = np.einsum("kc,bcp->bkp", net.fc.weight[[2, 0]].detach(), F.adaptive_avg_pool1d(net.conv(x), 2).detach())
    mine = np.einsum("kc,bcp->bkp", own.classifier.weight, F.adaptive_avg_pool1d(own.features["features"], 2))
    assert built(ClassAttention(), ctx)(ctx).item() == pytest.approx(((theirs - mine) ** 2).mean(), rel=1e-5)


def test_stored_outputs_have_no_classifier(tmp_path):
    network = {"modality": "accelerometer", "encoder": "cnn1d", "taps": {"features": "blocks.3"}}
    tree = {
        "version": 1,
        "name": "stored",
        "data": {"dataset": "synthetic-motion", "protocol": "cross-subject"},
        "teachers": {"offline": {"outputs": str(tmp_path / "teacher.npz")}},
        "student": network,
        "losses": ["cross-entropy", "cat-kd"],
    }
    (tmp_path / "teacher.npz").touch()
    with pytest.raises(RecipeError) as refused:
        kdcore.load_recipe(tree)
    (found,) = refused.value.problems
    said = "the loss 'cat-kd' reads the classifiers of networks, but 'offline' is a file of stored outputs"
    assert (found.path, found.message) == ("losses[1]", said)
