"""Softmax regression representation learning, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kdcore import Batch, Classifier, Example, LossContext, Outputs
from kdcore_losses.srrl import SoftmaxRegression

B, K, OWN, THEIRS = 5, 4, 3, 6


def outputs(width, seed, positions=()):
    """Outputs of a network whose classifier reads the mean of its features over positions."""
    draw = np.random.default_rng(seed)
    features, weight, bias = draw.normal(size=(B, width, *positions)), draw.normal(size=(K, width)), draw.normal(size=K)
    logits = features.reshape(B, width, -1).mean(axis=2) @ weight.T + bias
    logits, features, weight, bias = (torch.from_numpy(x) for x in (logits, features, weight, bias))
    return Outputs(logits, {"features": features}, classifier=Classifier(weight, bias))


def context(student, **teachers):
    return LossContext(student, teachers, Batch(torch.arange(B), {}, None))


def built(loss, ctx):
    loss.setup(Example(ctx.student.detach(), dict(ctx.teachers), K))
    return loss.double()


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("positions", [(), (7,), (3, 2)], ids=["vector", "sequence", "map"])
def test_by_loops(relu, positions):
    """Two teachers of different widths; batch normalisation with the batch's biased variance."""
    student, wide, narrow = outputs(OWN, 0, positions), outputs(THEIRS, 1), outputs(2, 2)
    ctx = context(student, wide=wide, narrow=narrow)
    loss = built(SoftmaxRegression(relu=relu), ctx)
    pooled = student.features["features"].numpy().reshape(B, OWN, -1).mean(axis=2)
    total = 0.0
    for name, teacher in ctx.teachers.items():
        matrix = loss.connectors[name][0].linear.weight.detach().numpy()
        led = np.array([[sum(matrix[t, s] * row[s] for s in range(OWN)) for t in range(len(matrix))] for row in pooled])
        normal = (led - led.mean(axis=0)) / np.sqrt(led.var(axis=0) + 1e-5)
        normal = np.maximum(normal, 0) if relu else normal
        found = normal @ teacher.classifier.weight.numpy().T + teacher.classifier.bias.numpy()
        total += ((found - teacher.logits.numpy()) ** 2).sum() / (B * K) / 2
    assert loss(ctx).item() == pytest.approx(total, rel=1e-9)


def test_gradient_reaches_features_and_connector_but_not_the_teachers_classifier():
    student, teacher = outputs(OWN, 0), outputs(THEIRS, 1)
    student.features["features"].requires_grad_()
    ctx = context(student, teacher=teacher)
    loss = built(SoftmaxRegression(relu=False), ctx)

    def of(features):
        return loss(context(Outputs(student.logits, {"features": features}), teacher=teacher))

    assert torch.autograd.gradcheck(of, student.features["features"])
    loss(ctx).backward()
    assert all(each.grad is not None for each in loss.connectors.parameters())
    assert teacher.classifier.weight.grad is None


def test_a_teacher_without_its_classifier_is_refused():
    student, teacher = outputs(OWN, 0), outputs(THEIRS, 1)
    with pytest.raises(ValueError, match=r"srrl reads classifiers: kdcore.Outputs\(…, classifier="):
        built(SoftmaxRegression(), context(student, teacher=Outputs(teacher.logits, teacher.features)))
