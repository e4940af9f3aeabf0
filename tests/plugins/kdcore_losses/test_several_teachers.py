"""Losses that weigh several teachers, by loops in float64 written from the papers' equations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from kdcore import Example
from kdcore.shares import shortest_shares
from kdcore_losses.ae_kd import AdaptiveEnsemble
from kdcore_losses.amtml_kd import AdaptiveTeachers
from kdcore_losses.average import AveragedTeachers
from kdcore_losses.eb_kd import EntropyBased, entropy_weights
from kdcore_losses.graph_distillation import GraphDistillation
from kdcore_losses.soft_target import SoftTarget

B, C, K = 4, 5, 3
S, *TEACHERS = (2 * np.random.default_rng(seed).normal(size=(B, C)) for seed in range(K + 1))
F, *FEATURES = (np.random.default_rng(seed).normal(size=(B, 6, 3)) for seed in range(10, 11 + K))


def softmax(row, T=1.0):
    raised = [math.exp(z / T) for z in row]
    return np.array([each / sum(raised) for each in raised])


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


@pytest.fixture
def ctx(context):
    student, features = torch.from_numpy(S).requires_grad_(), torch.from_numpy(F).requires_grad_()
    return context(student, [torch.from_numpy(t) for t in TEACHERS], None, features, [torch.from_numpy(f) for f in FEATURES])


def built(loss, ctx):
    torch.manual_seed(0)
    loss.setup(Example(ctx.student.detach(), dict(ctx.teachers), C))
    for parameter in loss.double().parameters():
        torch.nn.init.normal_(parameter)
    return loss


def test_mean_logits_by_loops(ctx):
    total = 0.0
    for b in range(B):
        target = softmax(sum(t[b] for t in TEACHERS) / K, 4)
        geometric = np.prod([softmax(t[b], 4) for t in TEACHERS], axis=0) ** (1 / K)
        np.testing.assert_allclose(target, geometric / geometric.sum())
        total += 16 * kl(target, softmax(S[b], 4)) / B
    assert AveragedTeachers()(ctx).item() == pytest.approx(total, rel=1e-9)


def test_soft_targets_have_the_gradient_of_mean_probabilities(ctx):
    """The arithmetic mean needs no loss of its own."""
    target = torch.stack([(each.logits / 4).softmax(dim=1) for each in ctx.teachers.values()]).mean(dim=0)
    mean = -16 * (target * (ctx.student.logits / 4).log_softmax(dim=1)).sum(dim=1).mean()
    found, wanted = (torch.autograd.grad(each, ctx.student.logits)[0] for each in (SoftTarget()(ctx), mean))
    torch.testing.assert_close(found, wanted)


def test_entropy_weights_by_loops(ctx):
    total = 0.0
    for b in range(B):
        entropies = [-sum(p * math.log(p) for p in softmax(t[b])) for t in TEACHERS]
        weights = (1 - softmax(entropies)) / (K - 1)
        total += sum(w * 16 * kl(softmax(t[b], 4), softmax(S[b], 4)) for w, t in zip(weights, TEACHERS, strict=True)) / B
    assert EntropyBased()(ctx).item() == pytest.approx(total, rel=1e-9)


def test_the_surer_teacher_counts_more():
    weights = entropy_weights(torch.tensor([[[9.0, 0, 0]], [[1.0, 0, 0]], [[0.0, 0, 0]]]))
    assert weights[0] > weights[1] > weights[2] > 0
    assert weights.sum(dim=0).item() == pytest.approx(1)


@pytest.mark.parametrize("largest", [0.2, 0.4, 0.6, 1.0])
def test_weights_by_agreement_of_gradients(ctx, largest):
    """The gradients by automatic differentiation of each teacher's own term, the weights by a general solver."""
    logits, terms = ctx.student.logits, []
    for each in ctx.teachers.values():
        p, q = (each.logits / 4).softmax(dim=1), (logits / 4).log_softmax(dim=1)
        terms.append(16 * (p * (p.log() - q)).sum(dim=1).mean())
    each = torch.stack([torch.autograd.grad(term, logits, retain_graph=True)[0] for term in terms])
    g = each.sum(dim=1).numpy()  # of the mean over samples
    limit = max(largest, 1 / K)
    best = minimize(
        lambda shares: ((shares @ g) ** 2).sum() * 1e4,
        np.full(K, 1 / K),
        bounds=[(0, limit)] * K,
        constraints={"type": "eq", "fun": lambda shares: shares.sum() - 1},
        tol=1e-14,
    )
    assert best.x.max() <= limit + 1e-9
    found = AdaptiveEnsemble(largest_share=largest)(ctx)
    assert found.item() == pytest.approx(sum(w * term.item() for w, term in zip(best.x, terms, strict=True)), rel=1e-4)
    (gradient,) = torch.autograd.grad(found, logits)
    torch.testing.assert_close(gradient, torch.einsum("k,kbc->bc", torch.from_numpy(best.x), each), rtol=1e-3, atol=1e-4)


def test_a_teacher_against_two_others_is_limited(context):
    """Two teachers agree, the third says the opposite: without a limit, half of the weight is its own."""
    one = torch.from_numpy(np.random.default_rng(0).normal(size=C)).expand(B, C)
    ctx = context(torch.zeros(B, C).double(), [one, one, -one])
    gradients = torch.stack([1 / C - (each.logits / 4).softmax(dim=1).mean(dim=0) for each in ctx.teachers.values()])
    assert shortest_shares(gradients, 1.0)[2] > 0.45
    assert shortest_shares(gradients, 0.4)[2] == pytest.approx(0.4)
    divergences = [SoftTarget()(context(ctx.student.logits, [each.logits])) for each in ctx.teachers.values()]
    wanted = 0.6 * divergences[0] + 0.4 * divergences[2]
    assert AdaptiveEnsemble(largest_share=0.4)(ctx).item() == pytest.approx(wanted.item())


def test_learnt_weights_by_loops(ctx):
    loss = built(AdaptiveTeachers(), ctx)
    factors = [loss.factors[f"teacher{k}"].detach().numpy() for k in range(K)]
    total = 0.0
    for b in range(B):
        alpha = F[b].max(axis=1)
        weights = softmax([loss.direction[0].detach().numpy() @ (factor * alpha) for factor in factors])
        mixed = sum(w * softmax(t[b], 4) for w, t in zip(weights, TEACHERS, strict=True))
        total += 16 * kl(mixed, softmax(S[b], 4)) / B
    assert loss(ctx).item() == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("features", [0.05, 0.0])
def test_graph_distillation_by_loops(ctx, features):
    loss = built(GraphDistillation(features=features, size=4, sharpness=0.5, edges=3.0), ctx)
    weights = [each.weight.detach().numpy() for each in loss.embed]
    edge = loss.edge.weight.detach().numpy()[0]

    def far(a, b):
        return 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    edges, total = np.zeros((B, K)), 0.0
    for b in range(B):
        parts = [[t[b], f[b].mean(axis=1)][: 2 if features else 1] for t, f in zip(TEACHERS, FEATURES, strict=True)]
        embedded = [np.concatenate([w @ part for w, part in zip(weights, each, strict=True)]) for each in parts]
        edges[b] = softmax([0.5 * edge @ each for each in embedded])
        for k in range(K):
            distance = far(S[b], TEACHERS[k][b]) + features * far(F[b].mean(axis=1), FEATURES[k][b].mean(axis=1))
            total += (edges[b, k] + 1 / K) * distance / B
    total += 3 * sum((edges[:, k].mean() - 1 / K) ** 2 for k in range(K))
    assert loss(ctx).item() == pytest.approx(total, rel=1e-9)


def test_features_of_unlike_width_are_refused_unless_left_out(context):
    teachers = [torch.from_numpy(t) for t in TEACHERS[:2]]
    ctx = context(torch.from_numpy(S), teachers, None, torch.randn(B, 3), [torch.randn(B, 4), torch.randn(B, 3)])
    with pytest.raises(
        ValueError, match=r"features have 3 channels and teachers' .*4.*: make them equal, or set features to 0"
    ):
        built(GraphDistillation(), ctx)
    assert GraphDistillation(features=0.0).needs.student_taps == ()


@pytest.mark.parametrize(
    "loss", [AveragedTeachers(), EntropyBased(), AdaptiveEnsemble(), AdaptiveTeachers(), GraphDistillation()]
)
def test_they_ask_for_two_teachers(loss):
    assert loss.needs.teachers == 2
