"""Losses on activations by loops in float64, written from the papers' equations."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from kdcore import Example, Progress
from kdcore_losses.ab import ActivationBoundaries
from kdcore_losses.connectors import ChannelNorm, convolution
from kdcore_losses.factor_transfer import FactorTransfer
from kdcore_losses.fitnet import FitNet
from kdcore_losses.fsp import SolutionFlow
from kdcore_losses.hallucination import Hallucination
from kdcore_losses.ickd import InterChannelCorrelation
from kdcore_losses.mgd import MaskedGenerative
from kdcore_losses.nst import NeuronSelectivity
from kdcore_losses.ofd import OverhaulDistillation
from kdcore_losses.pad import PrimeAware
from kdcore_losses.reviewkd import KnowledgeReview, stretch
from kdcore_losses.srd import SimpleRecipe
from kdcore_losses.vid import VariationalInformation

B = 3
S, T, W = (
    np.random.default_rng(seed).normal(size=shape) for seed, shape in ((0, (B, 4, 3, 2)), (1, (B, 4, 3, 2)), (2, (B, 5, 3, 2)))
)


@pytest.fixture
def ctx(context):
    def make(student=S, teacher=T):
        def tensors(each):
            return {k: torch.from_numpy(v) for k, v in each.items()} if isinstance(each, dict) else torch.from_numpy(each)

        found = context(features=tensors(student), teacher_features=[tensors(teacher)], batch=B)
        for x in found.student.features.values():
            x.requires_grad_()
        return found

    return make


def built(loss, ctx):
    torch.manual_seed(0)
    loss.setup(Example(ctx.student.detach(), dict(ctx.teachers), 3))
    for norm in loss.modules():
        if isinstance(norm, ChannelNorm) and norm.affine:
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    return loss.double()


def positions(x):
    """Every sample's every position, as vectors of channels."""
    return [x[(b, slice(None), *at)] for b in range(len(x)) for at in np.ndindex(x.shape[2:])]


def pointwise(regressor, x):
    """A 1×1 convolution, one position at a time."""
    weight = regressor.linear.weight.detach().numpy()
    out = np.zeros((len(x), len(weight), *x.shape[2:]))
    for b in range(len(x)):
        for at in np.ndindex(x.shape[2:]):
            out[(b, slice(None), *at)] = weight @ x[(b, slice(None), *at)]
    return out


def normed(norm, x):
    """Batch normalisation, one channel at a time."""
    out = np.zeros_like(x)
    for c in range(x.shape[1]):
        values = x[:, c]
        out[:, c] = (values - values.mean()) / math.sqrt(((values - values.mean()) ** 2).mean() + norm.eps)
        if norm.affine:
            out[:, c] = out[:, c] * norm.weight[c].item() + norm.bias[c].item()
    return out


def connected(connector, x):
    return normed(connector[1], pointwise(connector[0], x))


def rectified(x):
    return np.where(x > 0, x, 0)


def convolved(layer, x):
    """A convolution of width 3 over two axes, tap by tap; `x` (B, C, H, W)."""
    weight = layer.weight.detach().numpy()
    out = np.zeros((len(x), len(weight), *x.shape[2:]))
    for b, o, h, w in np.ndindex(out.shape):
        out[b, o, h, w] = 0 if layer.bias is None else layer.bias[o].item()
        for i, dh, dw in np.ndindex(weight.shape[1:]):
            if 0 <= h + dh - 1 < x.shape[2] and 0 <= w + dw - 1 < x.shape[3]:
                out[b, o, h, w] += weight[o, i, dh, dw] * x[b, i, h + dh - 1, w + dw - 1]
    return out


@pytest.mark.parametrize("kernel", ["linear", "polynomial", "gaussian"])
def test_neuron_selectivity_by_loops(ctx, kernel):
    total = 0.0
    for b in range(B):
        s, t = ([row.ravel() / np.linalg.norm(row) for row in x[b]] for x in (S, W))
        width = np.mean([(p - q) @ (p - q) for p in t for q in t])
        k = {
            "linear": lambda p, q: p @ q,
            "polynomial": lambda p, q: (p @ q) ** 2,
            "gaussian": lambda p, q, width=width: math.exp(-((p - q) @ (p - q)) / 2 / width),
        }[kernel]
        pairs = ((t, t, 1), (s, s, 1), (t, s, -2))
        total += sum(sign * np.mean([k(p, q) for p in one for q in other]) for one, other, sign in pairs)
    assert NeuronSelectivity(kernel=kernel)(ctx(S, W)).item() == pytest.approx(total / B, rel=1e-9)


def test_flow_of_the_solution_by_loops(ctx):
    draw = np.random.default_rng(5)
    student = {"a": draw.normal(size=(B, 2, 4, 4)), "b": draw.normal(size=(B, 3, 2, 2)), "c": draw.normal(size=(B, 2, 2, 2))}
    teacher = {"x": draw.normal(size=(B, 2, 6, 6)), "y": draw.normal(size=(B, 3, 3, 3)), "z": draw.normal(size=(B, 2, 3, 3))}

    def flow(first, second, b):
        size = second.shape[2]
        cells = first[b].reshape(first.shape[1], size, first.shape[2] // size, size, first.shape[3] // size).mean(axis=(2, 4))
        return sum(np.outer(cells[:, i, j], second[b, :, i, j]) for i in range(size) for j in range(size)) / size**2

    total = 0.0
    for (s1, s2), (t1, t2) in (("ab", "xy"), ("bc", "yz")):
        for b in range(B):
            total += ((flow(student[s1], student[s2], b) - flow(teacher[t1], teacher[t2], b)) ** 2).sum() / B / 2
    loss = SolutionFlow(pairs=[("x", "a"), ("y", "b"), ("z", "c")])
    assert loss(ctx(student, teacher)).item() == pytest.approx(total, rel=1e-9)


def test_a_flow_needs_two_taps_and_as_many_channels(ctx):
    with pytest.raises(ValueError, match="at least two pairs"):
        SolutionFlow(pairs=[("a", "a")])
    unlike = ctx({"a": S, "b": S}, {"a": W, "b": W})
    with pytest.raises(ValueError, match=r"as many channels .* \(3, 4, 3, 2\) and \(3, 5, 3, 2\) differ"):
        built(SolutionFlow(pairs=[("a", "a"), ("b", "b")]), unlike)


@pytest.mark.parametrize("teacher", [T, W])
def test_inter_channel_correlation_by_loops(ctx, teacher):
    found = ctx(S, teacher)
    loss = built(InterChannelCorrelation(), found)
    student = pointwise(loss.regressors["teacher0_0"], S) if teacher is W else S

    def correlation(x):
        table = np.array([[(p * q).sum() for q in x] for p in x])
        return np.array([row / math.sqrt(sum(row**2)) for row in table])

    wanted = np.mean(
        [((correlation(s) - correlation(t)) ** 2).sum() / len(t) ** 2 for s, t in zip(student, teacher, strict=True)]
    )
    assert loss(found).item() == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("teacher", [T, W])
def test_hallucination_by_loops(ctx, teacher):
    found = ctx(S, teacher)
    loss = built(Hallucination(), found)
    student = pointwise(loss.regressors["teacher0_0"], S) if teacher is W else S
    pairs = zip(student.ravel(), teacher.ravel(), strict=True)
    wanted = np.mean([(1 / (1 + math.exp(-s)) - 1 / (1 + math.exp(-t))) ** 2 for s, t in pairs])
    assert loss(found).item() == pytest.approx(wanted, rel=1e-9)


def test_fitnet_without_regressor_is_the_plain_error(ctx):
    loss = built(FitNet(regressor="never"), found := ctx(S, T))
    assert loss(found).item() == pytest.approx(np.mean((S - T) ** 2), rel=1e-9)
    with pytest.raises(ValueError, match="equally many channels, but the student has 4 and the teacher 5; give the student a"):
        built(FitNet(regressor="never"), ctx(S, W))


def test_variational_information_by_loops(ctx):
    found = ctx(S, W)
    loss = built(VariationalInformation(variance=2.0), found)
    mean = loss.means["teacher0_0"]
    mu = pointwise(mean[4], rectified(pointwise(mean[2], rectified(pointwise(mean[0], S)))))
    assert loss(found).item() == pytest.approx(0.5 * (((mu - W) ** 2).mean() / 2 + math.log(2)), rel=1e-6)
    with torch.no_grad():
        loss.scales["teacher0_0"].copy_(torch.arange(5.0) - 2)
    wanted = 0.0
    for c in range(5):
        variance = math.log(1 + math.exp(c - 2)) + 1e-5
        wanted += np.mean((mu[:, c] - W[:, c]) ** 2 / variance + math.log(variance)) / 2 / 5
    assert loss(found).item() == pytest.approx(wanted, rel=1e-9)


def test_activation_boundaries_by_loops(ctx):
    found = ctx(S, W)
    loss = built(ActivationBoundaries(margin=0.7), found)
    student = connected(loss.connectors["teacher0_0"], S)
    total = 0.0
    for s, t in zip(student.ravel(), W.ravel(), strict=True):
        if t > 0 and s <= 0.7:
            total += (s - 0.7) ** 2
        if t <= 0 and s > -0.7:
            total += (s + 0.7) ** 2
    assert loss(found).item() == pytest.approx(total / W.size, rel=1e-9)


def test_factor_transfer_by_loops(ctx):
    found = ctx(S, W)
    loss = built(FactorTransfer(rate=0.4), found)

    def run(three, x):
        for layer in (three[0], three[2]):
            x = convolved(layer, x)
            x = np.where(x > 0, x, 0.1 * x)
        return convolved(three[4], x)

    factors, own = run(loss.paraphrasers["teacher0_0"], W), run(loss.translators["teacher0_0"], S)
    assert factors.shape == own.shape == (B, 2, 3, 2)
    wanted = np.mean((W - run(loss.decoders["teacher0_0"], factors)) ** 2)
    for f, g in zip(factors, own, strict=True):
        wanted += np.mean(np.abs(f / np.linalg.norm(f) - g / np.linalg.norm(g))) / B
    assert loss(found).item() == pytest.approx(wanted, rel=1e-9)


def test_a_paraphraser_learns_from_the_teacher_alone(ctx):
    found = ctx(S, W)
    loss = built(FactorTransfer(), found)
    before = torch.autograd.grad(loss(found), list(loss.paraphrasers.parameters()))
    other = ctx(2 * S + 1, W)
    after = torch.autograd.grad(loss(other), list(loss.paraphrasers.parameters()))
    assert any(gradient.any() for gradient in before)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_paraphraser_may_learn_in_epochs_of_its_own(ctx):
    found = ctx(S, W)
    together, staged = built(FactorTransfer(), found), built(FactorTransfer(paraphraser_epochs=2), found)
    before, after = (staged(replace(found, progress=Progress(epoch=epoch))) for epoch in (1, 2))
    assert (before + after).item() == pytest.approx(together(found).item(), rel=1e-9)

    def learns(value, *, student, paraphraser):
        weights = [*found.student.features.values(), *staged.translators.parameters()]
        others = [*staged.paraphrasers.parameters(), *staged.decoders.parameters()]
        for tensors, wanted in ((weights, student), (others, paraphraser)):
            gradients = torch.autograd.grad(value, tensors, allow_unused=True, retain_graph=True)
            assert all((gradient is not None) == wanted for gradient in gradients)

    learns(before, student=False, paraphraser=True)
    learns(after, student=True, paraphraser=False)


def test_overhaul_by_loops_over_two_batches(ctx):
    found = ctx(S, W)
    loss = built(OverhaulDistillation(), found)
    second = np.random.default_rng(9).normal(size=W.shape)
    negatives = [[] for _ in range(5)]
    for teacher in (W, second):
        student, total = connected(loss.connectors["teacher0_0"], S), 0.0
        for c in range(5):
            negatives[c] += [each for each in teacher[:, c].ravel() if each < 0]
            margin = sum(negatives[c]) / len(negatives[c])
            for s, t in zip(student[:, c].ravel(), teacher[:, c].ravel(), strict=True):
                t = max(t, margin)
                total += 0 if s <= t <= 0 else (t - s) ** 2
        assert loss(ctx(S, teacher)).item() == pytest.approx(total / W.size, rel=1e-9)
    kept = loss.eval().state_dict()["margins.teacher0_0.mean"].clone()
    np.testing.assert_allclose(kept, [np.mean(each) for each in negatives])
    loss(ctx(S, W))
    assert torch.equal(loss.state_dict()["margins.teacher0_0.mean"], kept)


@pytest.mark.parametrize("teacher", [T, W])
def test_prime_aware_by_loops(ctx, teacher):
    found = ctx(S, teacher)
    loss = built(PrimeAware(), found)
    logs = connected(loss.variances["teacher0_0"], S)
    student = pointwise(loss.regressors["teacher0_0"], S) if teacher is W else S
    every = zip(student.ravel(), teacher.ravel(), logs.ravel(), strict=True)
    wanted = np.mean([(t - s) ** 2 / (math.exp(log) + 1e-6) + log for s, t, log in every])
    assert loss(found).item() == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("exponent", [4.0, 2.5])
def test_simple_recipe_by_loops(ctx, exponent):
    found = ctx(S, W)
    loss = built(SimpleRecipe(exponent=exponent), found)
    of_student, of_teacher = loss.norms["teacher0_0"]
    student = normed(of_student, pointwise(loss.projectors["teacher0_0"], S.mean(axis=(2, 3))))
    teacher = normed(of_teacher, W.mean(axis=(2, 3)))
    total = sum(abs(s - t) ** exponent for s, t in zip(student.ravel(), teacher.ravel(), strict=True))
    assert loss(found).item() == pytest.approx(math.log(total), rel=1e-7)


@pytest.mark.parametrize("mask", ["channels", "positions"])
def test_masked_generative_by_loops(ctx, mask):
    found = ctx(S, W)
    loss = built(MaskedGenerative(mask=mask, share=0.4), found)
    generator, student = loss.generators["teacher0_0"], pointwise(loss.regressors["teacher0_0"], S)
    shape = (B, 5, 1, 1) if mask == "channels" else (B, 1, 3, 2)
    torch.manual_seed(6)
    kept = (torch.rand(shape) >= 0.4).numpy()
    assert 0 < kept.mean() < 1
    made = convolved(generator[2], rectified(convolved(generator[0], student * kept)))
    torch.manual_seed(6)
    assert loss(found).item() == pytest.approx(((made - W) ** 2).mean(), rel=1e-9)


def test_positions_of_vectors_are_not_masked(ctx):
    with pytest.raises(ValueError, match=r"cannot mask positions, since \(3, 4\) and \(3, 5\) share none"):
        built(MaskedGenerative(mask="positions"), ctx(S[..., 0, 0], W[..., 0, 0]))


def test_knowledge_review_by_loops(ctx):
    draw = np.random.default_rng(5)
    student = {"low": draw.normal(size=(B, 2, 6, 6)), "high": draw.normal(size=(B, 3, 3, 3))}
    teacher = {"low": draw.normal(size=(B, 4, 6, 6)), "high": draw.normal(size=(B, 5, 3, 3))}
    found = ctx(student, teacher)
    loss = built(KnowledgeReview(pairs=[("low", "low"), ("high", "high")], width=2), found)
    low, high = loss.fusions["teacher0_0"], loss.fusions["teacher0_1"]

    def average(x, length):
        n = x.shape[2]
        edges = [(i * n // length, -(-(i + 1) * n // length)) for i in range(length)]
        return np.array([[x[:, :, a:b, c:d].mean(axis=(2, 3)) for c, d in edges] for a, b in edges])

    def context_loss(x, y):
        value, weight, total = ((x - y) ** 2).mean(), 1.0, 1.0
        for length in (4, 2, 1):
            if length < x.shape[2]:
                weight /= 2
                total += weight
                value += weight * ((average(x, length) - average(y, length)) ** 2).mean()
        return value / total

    deep = connected(high.narrow, student["high"])
    wanted = context_loss(normed(high.widen[1], convolved(high.widen[0], deep)), teacher["high"])
    x = connected(low.narrow, student["low"])
    weight = low.attention.linear.weight.detach().numpy()
    fused = np.zeros_like(x)
    for b, h, w in np.ndindex(B, 6, 6):
        below = deep[b, :, h // 2, w // 2]
        scores = weight @ np.concatenate([x[b, :, h, w], below])
        fused[b, :, h, w] = x[b, :, h, w] / (1 + math.exp(-scores[0])) + below / (1 + math.exp(-scores[1]))
    wanted += context_loss(normed(low.widen[1], convolved(low.widen[0], fused)), teacher["low"])
    assert loss(found).item() == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("length", [2, 3, 5, 7, 12])
def test_stretching_is_nearest_neighbour_interpolation(length):
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(stretch(x, 2, length), nn.functional.interpolate(x, size=length, mode="nearest"))


def test_channel_norm_is_batch_norm_and_has_an_answer_for_one_value():
    ours, theirs = ChannelNorm(4).double(), nn.BatchNorm2d(4).double()
    for _ in range(3):
        x = torch.randn(3, 4, 2, 5, dtype=torch.float64) * 2 + 1
        torch.testing.assert_close(ours(x), theirs(x))
    one = torch.randn(1, 4, dtype=torch.float64)
    torch.testing.assert_close(ours(one), theirs.eval()(one[:, :, None, None])[:, :, 0, 0])
    assert torch.equal(ours.running_mean, theirs.running_mean)


def test_four_position_axes_cannot_be_convolved():
    with pytest.raises(ValueError, match="4 position axes cannot be convolved; at most 3"):
        convolution(2, 2, 4)


@pytest.mark.parametrize("loss", [NeuronSelectivity(), InterChannelCorrelation()])
def test_vectors_have_no_positions_to_compare(ctx, loss):
    with pytest.raises(ValueError, match=r"compares positions, but \(3, 4\) and \(3, 4\) share fewer than two"):
        built(loss, ctx(S[..., 0, 0], T[..., 0, 0]))


@pytest.mark.parametrize("loss", [VariationalInformation(), ActivationBoundaries(), OverhaulDistillation(), PrimeAware()])
def test_each_teacher_has_modules_of_its_own(ctx, loss):
    found = ctx(S, W)
    two = replace(found, teachers={"a.b": found.teachers["teacher0"], "c": found.teachers["teacher0"]})
    keys = {name.split(".")[1] for name, _ in built(loss, two).named_parameters()}
    assert keys == {"a_b_0", "c_0"}


@pytest.mark.parametrize("kernel", ["linear", "polynomial"])
@pytest.mark.parametrize(("channels", "positions"), [((6, 5), (2, 2)), ((2, 3), (4, 3))])
def test_nst_by_loops_over_channels(kernel, channels, positions):
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(3, c, *positions, generator=generator, dtype=torch.float64) for c in channels)

    def similarity(x, y):
        products = [float(a @ b / (a.norm() * b.norm())) for a in x.flatten(1) for b in y.flatten(1)]
        return sum(p if kernel == "linear" else p**2 for p in products) / len(products)

    expected = (
        sum(similarity(s, s) + similarity(t, t) - 2 * similarity(t, s) for s, t in zip(student, teacher, strict=True)) / 3
    )
    found = NeuronSelectivity(kernel=kernel).compare("", student, teacher)
    torch.testing.assert_close(float(found), expected)
