"""Relation and contrastive losses by loops in float64, written from the papers' equations; the memory bank."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import orth

from kdcore import Example
from kdcore_losses.affinity import Affinity
from kdcore_losses.cka import KernelAlignment
from kdcore_losses.crd import ContrastiveRepresentation
from kdcore_losses.infonce import InfoNCE
from kdcore_losses.memory_bank import MemoryBank
from kdcore_losses.pkt import ProbabilisticTransfer

B = 5
S, T = (np.random.default_rng(seed).normal(size=(B, width)) for seed, width in ((0, 3), (1, 7)))


def cosine(a, b):
    return a @ b / math.sqrt(a @ a) / math.sqrt(b @ b)


def pair(context, student=S, teacher=T, labels=None, rows=None):
    student = torch.from_numpy(student.copy()).requires_grad_()
    ctx = context(features=student, teacher_features=[torch.from_numpy(teacher)], labels=labels)
    table = [None] * 9
    return replace(ctx, batch=replace(ctx.batch, table=table, rows=ctx.batch.rows if rows is None else torch.tensor(rows)))


def built(loss, ctx):
    torch.manual_seed(0)
    loss.setup(Example(ctx.student.detach(), dict(ctx.teachers), 3))
    return loss.double()


def numbers(head):
    weights, bias = (each.detach().numpy() for each in (head.weight, head.bias))
    return lambda x: (weights @ x + bias) / np.linalg.norm(weights @ x + bias)


def test_pkt_by_loops(context):
    def likely(x, i, j):
        near = [(cosine(x[i], x[k]) + 1) / 2 for k in range(B)]
        return near[j] / sum(near[k] for k in range(B) if k != i)

    others = [(i, j) for i in range(B) for j in range(B) if i != j]
    wanted = sum(likely(T, i, j) * math.log(likely(T, i, j) / likely(S, i, j)) for i, j in others) / B
    assert ProbabilisticTransfer()(pair(context)).item() == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("centred", [True, False])
def test_kernel_alignment_by_loops(context, centred):
    def kernel(x):
        x = x - x.mean(axis=0) if centred else x
        return np.array([[a @ b for b in x] for a in x])

    own, theirs = kernel(S), kernel(T)
    hsic = [
        sum(a[i, j] * b[i, j] for i in range(B) for j in range(B)) for a, b in ((own, theirs), (own, own), (theirs, theirs))
    ]
    wanted = 1 - hsic[0] / math.sqrt(hsic[1] * hsic[2])
    assert KernelAlignment(centred=centred)(pair(context)).item() == pytest.approx(wanted, rel=1e-9)


def test_kernel_alignment_does_not_see_rotations_but_uncentred_sees_shifts(context):
    turn = orth(np.random.default_rng(3).normal(size=(3, 3)))
    assert KernelAlignment()(pair(context, S, S @ turn * 3 + 5)).item() == pytest.approx(0, abs=1e-12)
    assert KernelAlignment(centred=False)(pair(context, S, S @ turn)).item() == pytest.approx(0, abs=1e-12)
    assert KernelAlignment(centred=False)(pair(context, S, S @ turn + 5)).item() > 0.01


def test_affinity_by_loops(context):
    student, teacher = (np.random.default_rng(seed).normal(size=(2, width, 3, 2)) for seed, width in ((0, 3), (1, 5)))
    total = 0.0
    for b in range(2):
        s, t = student[b].reshape(3, 6), teacher[b].reshape(5, 6)
        for i in range(6):
            for j in range(6):
                total += (cosine(s[:, i], s[:, j]) - cosine(t[:, i], t[:, j])) ** 2 / 36 / 2
    assert Affinity()(pair(context, student, teacher)).item() == pytest.approx(total, rel=1e-9)


def test_infonce_by_loops(context):
    ctx = pair(context)
    loss = built(InfoNCE(size=4, temperature=0.2), ctx)
    own, theirs = (numbers(head) for head in loss.heads["teacher0_0"])
    score = np.array([[own(s) @ theirs(t) / 0.2 for t in T] for s in S])
    wanted = 0.0
    for i in range(B):
        wanted -= score[i, i] - math.log(sum(math.exp(score[i, j]) for j in range(B)))
        wanted -= score[i, i] - math.log(sum(math.exp(score[j, i]) for j in range(B)))
    assert loss(ctx).item() == pytest.approx(wanted / 2 / B, rel=1e-9)


def crd(context, **options):
    """A loss, and a step that gives it the next batch."""
    rows, labels = [7, 2, 0, 5, 3], torch.tensor([0, 1, 0, 2, 1])
    loss = built(ContrastiveRepresentation(size=4, temperature=0.3, **options), pair(context, labels=labels))

    def step(loss, number):
        order = np.random.default_rng(number).permutation(B)[: 3 + number % 3]
        return loss(pair(context, (S + 0.1 * number)[order], T[order], labels[order], [rows[i] for i in order]))

    return loss, step


class LoopBank:
    """The paper's bank in dicts, with everything spelt out."""

    def __init__(self, loss):
        self.own, self.theirs = (numbers(head) for head in loss.heads["teacher0_0"])
        self.rows, self.scales = {}, None

    def step(self, s, t, rows, labels, by, momentum=0.5, tau=0.3, total=9):
        x, y = [self.own(each) for each in s], [self.theirs(each) for each in t]
        for a, b, row, label in zip(x, y, rows, labels, strict=True):
            self.rows.setdefault(row, (a, b, label))
        sides = []
        for side, anchors in ((1, x), (0, y)):
            q = {}
            for b, row in enumerate(rows):
                for other, held in self.rows.items():
                    negative = held[2] != labels[b] if by == "class" else other != row
                    if negative or other == row:
                        q[b, other] = math.exp(anchors[b] @ held[side] / tau)
            sides.append(q)
        self.scales = self.scales or [np.mean(list(q.values())) * total for q in sides]
        value = 0.0
        for q, scale in zip(sides, self.scales, strict=True):
            for b, row in enumerate(rows):
                negatives = [each / scale for (at, other), each in q.items() if at == b and other != row]
                noise, positive = len(negatives) / total, q[b, row] / scale
                value -= math.log(positive / (positive + noise))
                value -= sum(math.log(noise / (each + noise)) for each in negatives)
        for a, b, row, label in zip(x, y, rows, labels, strict=True):
            moved = [momentum * old + (1 - momentum) * new for old, new in zip(self.rows[row][:2], (a, b), strict=True)]
            self.rows[row] = (*(each / np.linalg.norm(each) for each in moved), label)
        return value / len(rows)


@pytest.mark.parametrize("by", ["class", "sample"])
def test_crd_by_loops_over_several_batches(context, by):
    rows, labels = [7, 2, 0, 5, 3], [0, 1, 0, 2, 1]
    loss = built(ContrastiveRepresentation(size=4, temperature=0.3, by=by), pair(context, labels=torch.tensor(labels)))
    reference = LoopBank(loss)
    for number, order in enumerate(([0, 1, 2], [1, 3, 4], [4, 2, 0, 1, 3], [2, 0])):
        s = (S + 0.1 * number)[order]
        picked = [rows[i] for i in order], [labels[i] for i in order]
        found = loss(pair(context, s, T[order], torch.tensor(picked[1]), picked[0]))
        assert found.item() == pytest.approx(reference.step(s, T[order], *picked, by), rel=1e-5)
    bank = loss.banks["teacher0_0"]
    assert bank.seen.tolist() == [row in rows for row in range(9)]


def test_a_bank_resumed_from_its_state_goes_on_bit_by_bit(context):
    loss, step = crd(context, negatives=2)
    fresh, _ = crd(context, negatives=2)
    for number in range(3):
        step(loss, number)
    fresh.load_state_dict({name: x.clone() for name, x in loss.state_dict().items()})
    for number in range(3, 6):
        torch.manual_seed(number)
        wanted = step(loss, number)
        torch.manual_seed(number)
        assert torch.equal(step(fresh, number), wanted)
    assert all(torch.equal(x, fresh.state_dict()[name]) for name, x in loss.state_dict().items())


def test_a_bank_is_part_of_the_state_and_follows_the_part(context):
    loss, step = crd(context)
    step(loss, 2)
    bank = loss.banks["teacher0_0"]
    held = {name.rsplit(".", 1)[1] for name in loss.state_dict() if name.startswith("banks")}
    assert held == {"student", "teacher", "classes", "seen", "scales"}
    assert len(bank) == 9
    ctx = pair(context, labels=torch.tensor([0, 1, 0, 2, 1]))
    loss(replace(ctx, batch=replace(ctx.batch, table=[None] * 6)))
    assert bank.seen.tolist() == [True] * 5 + [False]


def test_no_more_negatives_than_asked_for(context):
    loss, step = crd(context, negatives=2, by="sample")
    for number in range(4):
        step(loss, number)
    bank = loss.banks["teacher0_0"]
    rows = torch.tensor([7, 2])
    drawn = [loss._choose(bank, rows, None) for _ in range(60)]
    assert all((each.sum(dim=1) == 2).all() for each in drawn)
    assert all(not each[0, 7] and not each[1, 2] and not each[:, ~bank.seen].any() for each in drawn)
    assert torch.stack(drawn)[:, 0].any(dim=0).tolist() == [row != 7 and bool(bank.seen[row]) for row in range(9)]


def test_a_bank_without_a_table_grows(context):
    loss, _ = crd(context)
    ctx = pair(context, labels=torch.tensor([0, 1, 0, 2, 1]))
    for rows in ([0, 1, 2, 3, 4], [8, 1, 2, 3, 4]):
        loss(replace(ctx, batch=replace(ctx.batch, table=(), rows=torch.tensor(rows))))
    bank = loss.banks["teacher0_0"]
    assert bank.seen.tolist() == [True] * 5 + [False] * 3 + [True]


def test_a_step_after_the_forward_pass_leaves_the_backward_pass_what_it_used(context):
    loss, step = crd(context)
    step(loss, 2)
    ctx = pair(context, labels=torch.tensor([0, 1, 0, 2, 1]))
    expected = torch.autograd.grad(deepcopy(loss)(ctx), ctx.student.features["features"])[0]
    first = loss(ctx)
    step(loss, 1)
    torch.testing.assert_close(torch.autograd.grad(first, ctx.student.features["features"])[0], expected)


def test_embeddings_in_the_bank_have_length_one():
    bank = MemoryBank(3)
    bank.resize(4)
    for _ in range(2):
        bank.update(torch.tensor([1, 3]), torch.tensor([[3.0, 4, 0], [1, 0, 0]]), torch.ones(2, 3), None, 0.5)
    torch.testing.assert_close(bank.student.norm(dim=1), torch.tensor([0.0, 1, 0, 1]))
    torch.testing.assert_close(bank.student[1], torch.tensor([0.6, 0.8, 0.0]))
