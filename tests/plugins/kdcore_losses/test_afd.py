"""Attention-based feature distillation by loops, and against maps pooled by PyTorch."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from kdcore import Example
from kdcore_losses.afd import AttentiveDistillation

B, D = 4, 3
TAPS = ["low", "high"]


def drawn(*shapes):
    return {tap: torch.randn(B, *shape, dtype=torch.float64) for tap, shape in zip(TAPS, shapes, strict=True)}


@pytest.fixture
def found(context):
    torch.manual_seed(0)
    return context(features=drawn((4, 6, 6), (5, 4, 4)), teacher_features=[drawn((7, 4, 4), (8, 2, 2))], batch=B)


def built(found, **options):
    loss = AttentiveDistillation(size=D, **options)
    loss.setup(Example(found.student.detach(), dict(found.teachers), 3))
    return loss.double()


def normalised(layer, x):
    y = x @ layer.weight.T
    return (y - y.mean(0)) / (y.var(0, unbiased=False) + 1e-5).sqrt()


def test_afd_by_loops(found):
    loss = built(found, teacher_taps=TAPS, student_taps=TAPS)
    links, own, theirs = loss.links["teacher0"], found.student.features, found.teachers["teacher0"].features
    keys = [normalised(links.keys[i][0], own[tap].mean((2, 3))).relu() for i, tap in enumerate(TAPS)]
    rows = torch.cat(
        [torch.stack([k[b] for k in keys]) for b in range(B)]
    )  # sample by sample, as batch normalisation sees them
    projected = normalised(links.bilinear[0], rows)
    wanted = 0.0
    for t, teacher_tap in enumerate(TAPS):
        query = normalised(links.queries[t][0], theirs[teacher_tap].mean((2, 3)))
        for b in range(B):
            fits, apart = [], []
            for s, student_tap in enumerate(TAPS):
                key = projected[b * 2 + s][t * D : (t + 1) * D]
                fit = (key @ query[b] + links.teacher_position[t] @ links.student_position[s]) / math.sqrt(D)
                fits.append(float(fit.detach()))
                mine = (own[student_tap][b] ** 2).mean(0)
                target = (theirs[teacher_tap][b] ** 2).mean(0)
                mine = F.adaptive_avg_pool2d(mine[None], target.shape)[0]  # as in the authors' code
                apart.append(((mine / mine.norm() - target / target.norm()) ** 2).mean())
            weights = [math.exp(fit) / sum(math.exp(each) for each in fits) for fit in fits]
            wanted += float(sum(w * a for w, a in zip(weights, apart, strict=True))) / B
    assert loss(found).item() == pytest.approx(wanted, rel=1e-9)


def test_the_links_are_learnt(found):
    loss = built(found, teacher_taps=TAPS, student_taps=TAPS)
    gradients = torch.autograd.grad(loss(found), [p for n, p in loss.named_parameters() if not n.endswith("bias")])
    assert all(gradient.any() for gradient in gradients)


def test_a_single_level_of_the_student_has_nothing_to_choose_from():
    with pytest.raises(ValueError, match="at least two taps of the student"):
        AttentiveDistillation(teacher_taps=TAPS, student_taps=["low"])
    with pytest.raises(ValueError, match="at least one tap of the teacher"):
        AttentiveDistillation(teacher_taps=[], student_taps=TAPS)
