"""Losses on logits by loops in float64, written from the papers' equations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from scipy.stats import kendalltau, pearsonr

from kdcore import Example, Outputs
from kdcore_losses.bce import BinaryDivergence
from kdcore_losses.c2kd import SelectiveDistillation, rank_correlation
from kdcore_losses.ca_mkd import ConfidenceAware
from kdcore_losses.consistency import Consistency
from kdcore_losses.dist import StrongerTeacher
from kdcore_losses.dkd import DecoupledDistillation
from kdcore_losses.js import JensenShannon
from kdcore_losses.logit_std import LogitStandardisation
from kdcore_losses.logits import Logits
from kdcore_losses.mlld import MultiLevelLogits
from kdcore_losses.nkd import NormalisedDistillation
from kdcore_losses.skd_direction import DirectionTerm
from kdcore_losses.soft_target import SoftTarget
from kdcore_losses.tf_kd import TeacherFree
from kdcore_losses.top_k import TopK
from kdcore_losses.ttm import TransformedTeacher
from kdcore_losses.wsld import WeightedSoftLabels

B, C = 4, 5
S, T1, T2 = (3 * np.random.default_rng(seed).normal(size=(B, C)) for seed in (0, 1, 2))
Y = np.array([3, 0, 4, 0])


def softmax(row, T=1.0):
    raised = [math.exp(z / T) for z in row]
    return np.array([each / sum(raised) for each in raised])


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def standard(row):
    mean = sum(row) / len(row)
    return np.array([(z - mean) / math.sqrt(sum((x - mean) ** 2 for x in row) / (len(row) - 1)) for z in row])


def rest(row, label):
    return np.array([z for c, z in enumerate(row) if c != label])


def teachers_mean(of_batch):
    """The mean over both teachers of what is said of the batch's logits."""
    return np.mean([of_batch(teacher) for teacher in (T1, T2)])


def dist(t, beta=1.0, gamma=1.0, T=1.0):
    p, q = (np.array([softmax(row, T) for row in z]) for z in (S, t))
    within = np.mean([1 - pearsonr(p[b], q[b])[0] for b in range(B)])
    between = np.mean([1 - pearsonr(p[:, c], q[:, c])[0] for c in range(C)])
    return T**2 * (beta * within + gamma * between)


def nkd(t, gamma, T):
    total = 0.0
    for s, z, y in zip(S, t, Y, strict=True):
        total -= softmax(z)[y] * math.log(softmax(s)[y])
        others = zip(softmax(rest(z, y), T), softmax(rest(s, y), T), strict=True)
        total -= gamma * T**2 * sum(a * math.log(b) for a, b in others)
    return total / B


def wsld(t, T):
    total = 0.0
    for s, z, y in zip(S, t, Y, strict=True):
        weight = 1 - math.exp(-math.log(softmax(s)[y]) / math.log(softmax(z)[y]))
        total -= weight * T**2 * sum(a * math.log(b) for a, b in zip(softmax(z, T), softmax(s, T), strict=True))
    return total / B


def mlld(t, temperatures):
    total = 0.0
    for T in temperatures:
        p, q = (np.array([softmax(row, T) for row in z]) for z in (S, t))
        total += T**2 * np.mean([kl(q[b], p[b]) for b in range(B)])
        total += sum((p[i] @ p[j] - q[i] @ q[j]) ** 2 for i in range(B) for j in range(B)) / B
        total += sum((p[:, i] @ p[:, j] - q[:, i] @ q[:, j]) ** 2 for i in range(C) for j in range(C)) / C
    return total


def ttm(t, T, weighted):
    total = 0.0
    for s, z in zip(S, t, strict=True):
        power = softmax(z) ** (1 / T)
        total += kl(power / power.sum(), softmax(s)) * (power.sum() if weighted else 1)
    return total / B


def js(t, T):
    total = 0.0
    for s, z in zip(S, t, strict=True):
        p, q = softmax(s, T), softmax(z, T)
        total += (kl(p, (p + q) / 2) + kl(q, (p + q) / 2)) / 2
    return T**2 * total / B


def top_k(t, k, T, over_all):
    total = 0.0
    for s, z in zip(S, t, strict=True):
        best = sorted(range(C), key=lambda c: -z[c])[:k]
        own = softmax(s, T)[best] if over_all else softmax(s[best], T)
        total += T**2 * kl(softmax(z[best], T), own)
    return total / B


def bce(t, T):
    total = 0.0
    for s, z in zip(S.ravel() / T, t.ravel() / T, strict=True):
        p, q = 1 / (1 + math.exp(-s)), 1 / (1 + math.exp(-z))
        total += kl((q, 1 - q), (p, 1 - p))
    return T**2 * total / B


def c2kd(t, threshold, T):
    total = 0.0
    for s, z, y in zip(S, t, Y, strict=True):
        if kendalltau(s, z)[0] > threshold:
            total += T**2 * kl(softmax(rest(z, y), T), softmax(rest(s, y), T))
    return total / B


def consistency(t):
    return sum((p - q) ** 2 for s, z in zip(S, t, strict=True) for p, q in zip(softmax(s), softmax(z), strict=True)) / (B * C)


def dkd_standardised(t):
    total = 0.0
    for s, z, y in zip(S, t, Y, strict=True):
        p, q = softmax(standard(s), 4), softmax(standard(z), 4)
        total += kl((q[y], 1 - q[y]), (p[y], 1 - p[y])) + 8 * kl(rest(q, y) / (1 - q[y]), rest(p, y) / (1 - p[y]))
    return 16 * total / B


GOLDEN = {
    "dist": (StrongerTeacher(), lambda: teachers_mean(dist)),
    "dist, weighted": (StrongerTeacher(beta=2, gamma=0.5, temperature=4), lambda: teachers_mean(lambda t: dist(t, 2, 0.5, 4))),
    "logit-std": (
        LogitStandardisation(),
        lambda: teachers_mean(
            lambda t: np.mean([4 * kl(softmax(standard(z), 2), softmax(standard(s), 2)) for s, z in zip(S, t, strict=True)])
        ),
    ),
    "nkd": (NormalisedDistillation(), lambda: teachers_mean(lambda t: nkd(t, 1.5, 1))),
    "nkd, T 3": (NormalisedDistillation(gamma=0.7, temperature=3), lambda: teachers_mean(lambda t: nkd(t, 0.7, 3))),
    "wsld": (WeightedSoftLabels(), lambda: teachers_mean(lambda t: wsld(t, 2))),
    "mlld": (MultiLevelLogits(), lambda: teachers_mean(lambda t: mlld(t, (2, 3, 4, 5, 6)))),
    "ttm": (TransformedTeacher(), lambda: teachers_mean(lambda t: ttm(t, 4, False))),
    "wttm": (TransformedTeacher(temperature=2, weighted=True), lambda: teachers_mean(lambda t: ttm(t, 2, True))),
    "js": (JensenShannon(), lambda: teachers_mean(lambda t: js(t, 4))),
    "js, T 1": (JensenShannon(temperature=1), lambda: teachers_mean(lambda t: js(t, 1))),
    "top-k": (TopK(k=3), lambda: teachers_mean(lambda t: top_k(t, 3, 4, False))),
    "top-k, all": (TopK(k=2, student="all", temperature=1), lambda: teachers_mean(lambda t: top_k(t, 2, 1, True))),
    "consistency": (Consistency(), lambda: teachers_mean(consistency)),
    "bce": (BinaryDivergence(), lambda: teachers_mean(lambda t: bce(t, 1))),
    "bce, T 2": (BinaryDivergence(temperature=2), lambda: teachers_mean(lambda t: bce(t, 2))),
    "c2kd": (SelectiveDistillation(), lambda: teachers_mean(lambda t: c2kd(t, 0, 1))),
    "c2kd, T 2": (SelectiveDistillation(threshold=-0.3, temperature=2), lambda: teachers_mean(lambda t: c2kd(t, -0.3, 2))),
    "dkd, standardised": (DecoupledDistillation(standardise=True), lambda: teachers_mean(dkd_standardised)),
    "logits, standardised": (
        Logits(standardise=True),
        lambda: teachers_mean(lambda t: np.mean([(standard(s) - standard(z)) ** 2 for s, z in zip(S, t, strict=True)])),
    ),
}


@pytest.fixture(scope="module")
def ctx(context):
    tensors = [torch.from_numpy(each) for each in (S, T1, T2)]
    return context(tensors[0].requires_grad_(), tensors[1:], torch.from_numpy(Y))


@pytest.mark.parametrize("name", GOLDEN)
def test_value_by_loops(ctx, name):
    loss, wanted = GOLDEN[name]
    assert loss(ctx).item() == pytest.approx(wanted(), rel=1e-6)
    assert wanted() > 1e-3


def test_teacher_free_by_loops(ctx):
    total = 0.0
    for s, y in zip(S, Y, strict=True):
        virtual = np.array([0.99 if c == y else 0.01 / (C - 1) for c in range(C)]) ** (1 / 20)
        total += kl(virtual / virtual.sum(), softmax(s, 20))
    assert TeacherFree()(ctx).item() == pytest.approx(total / B, rel=1e-9)
    assert TeacherFree(squared=True)(ctx).item() == pytest.approx(400 * total / B, rel=1e-9)


def test_a_virtual_teacher_at_temperature_one_is_label_smoothing(ctx):
    """Yuan et al., section 3: the gradients are those of cross-entropy with 1 - ε + ε/C on the true class."""
    ours = torch.autograd.grad(TeacherFree(correct=0.9, temperature=1.0)(ctx), ctx.student.logits)[0]
    smoothed = torch.nn.functional.cross_entropy(ctx.student.logits, ctx.labels, label_smoothing=0.1 * C / (C - 1))
    torch.testing.assert_close(ours, torch.autograd.grad(smoothed, ctx.student.logits)[0])


def test_weights_of_soft_labels_take_no_gradient(ctx):
    """The gradient is w T (p_S - p_k) / B for every teacher."""
    wanted = np.zeros((B, C))
    for t in (T1, T2):
        for b in range(B):
            weight = 1 - math.exp(-math.log(softmax(S[b])[Y[b]]) / math.log(softmax(t[b])[Y[b]]))
            wanted[b] += weight * 2 * (softmax(S[b], 2) - softmax(t[b], 2)) / B / 2
    found = torch.autograd.grad(WeightedSoftLabels()(ctx), ctx.student.logits)[0]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-9)


def test_confidence_weights_are_of_plain_logits_when_standardised(ctx):
    total = 0.0
    for b in range(B):
        errors = [-math.log(softmax(t[b])[Y[b]]) for t in (T1, T2)]
        weights = 1 - softmax(np.array(errors))
        total += sum(
            w * 16 * kl(softmax(standard(t[b]), 4), softmax(standard(S[b]), 4)) for w, t in zip(weights, (T1, T2), strict=True)
        )
    assert ConfidenceAware(standardise=True)(ctx).item() == pytest.approx(total / B, rel=1e-6)


@pytest.mark.parametrize(("classes", "levels"), [(11, 6), (11, 2), (2, 3), (16, 100), (100, 40)])
def test_rank_correlation_is_kendalls(classes, levels):
    draw = np.random.default_rng(0)
    a, b = (draw.integers(0, levels, size=(5, classes)).astype(float) for _ in range(2))
    found = rank_correlation(torch.from_numpy(a), torch.from_numpy(b))
    wanted = np.array([kendalltau(*rows)[0] for rows in zip(a, b, strict=True)])
    np.testing.assert_allclose(found, np.nan_to_num(wanted), rtol=1e-12, atol=1e-15)
    assert not rank_correlation(torch.zeros(2, 4), torch.randn(2, 4)).any()


def test_samples_that_modalities_rank_apart_are_left_out(context):
    student = torch.from_numpy(S.copy()).requires_grad_()
    teacher = torch.cat([-student[:2], student[2:] * 2]).detach()
    found = torch.autograd.grad(SelectiveDistillation()(context(student, [teacher], torch.from_numpy(Y))), student)[0]
    assert not found[:2].any()
    assert (found[2:].abs().sum(dim=1) > 0).all()


def test_k_must_be_smaller_than_the_number_of_classes():
    example = Example(Outputs(torch.zeros(2, C)), {"t": Outputs(torch.zeros(2, C))}, C)
    TopK(k=C - 1).setup(example)
    with pytest.raises(ValueError, match=r"k is 5, but there are only 5 classes: use a smaller k or soft-target"):
        TopK(k=C).setup(example)


def test_multi_label_gradient_is_that_of_binary_cross_entropy(ctx):
    target = sum(teacher.logits.sigmoid() for teacher in ctx.teachers.values()) / 2
    usual = torch.nn.functional.binary_cross_entropy_with_logits(ctx.student.logits, target, reduction="sum") / B
    found, wanted = (torch.autograd.grad(each, ctx.student.logits)[0] for each in (BinaryDivergence()(ctx), usual))
    torch.testing.assert_close(found, wanted)


def test_jensen_shannon_is_symmetric_and_bounded(context):
    one, other = torch.from_numpy(S), torch.from_numpy(T1)
    loss = JensenShannon(temperature=1.0)
    assert loss(context(one, [other])).item() == pytest.approx(loss(context(other, [one])).item(), rel=1e-12)
    assert loss(context(100 * one, [-100 * one])).item() == pytest.approx(math.log(2), rel=1e-6)


def test_standardised_soft_targets_equal_soft_targets_of_standardised_logits(context):
    plain = context(
        torch.from_numpy(np.array([standard(row) for row in S])), [torch.from_numpy(np.array([standard(row) for row in T1]))]
    )
    raw = context(torch.from_numpy(S), [torch.from_numpy(T1)])
    assert LogitStandardisation()(raw).item() == pytest.approx(SoftTarget(temperature=2.0)(plain).item(), rel=1e-6)


def test_skd_direction_by_loops(context):
    """Its covariance and distances, against numpy's and SciPy's of the same differences."""

    def distance(teacher):
        cosines = [[[x @ y / math.sqrt((x @ x) * (y @ y)) for y in logits] for x in logits] for logits in (S, teacher)]
        rows = np.array(cosines[0]) - np.array(cosines[1])
        inverse = np.linalg.inv(np.cov(rows, rowvar=False) + 0.1 * np.eye(B))
        return np.mean([mahalanobis(row, np.zeros(B), inverse) for row in rows])

    ctx = context(torch.from_numpy(S), [torch.from_numpy(T1), torch.from_numpy(T2)])
    assert float(DirectionTerm(ridge=0.1)(ctx)) == pytest.approx(teachers_mean(distance), rel=1e-9)
