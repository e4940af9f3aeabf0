"""State of losses: buffers, and what checkpoints would not save."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import replace

import learning
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kdcore import DistillationLoss, Needs
from kdcore.errors import TrainingError
from kdcore.recipe.data_models import MixSpec
from kdcore.training.participants import TermSpec
from kdcore.training.preflight import preflight


@pytest.fixture
def table(tmp_path):
    return learning.table(tmp_path)


class Remembers(DistillationLoss):
    """Counts its calls in a buffer, and reads labels."""

    needs = Needs(labels=True)

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, ctx):
        self.calls += 1
        return F.cross_entropy(ctx.student.logits, ctx.labels)


def test_a_loss_with_state_that_reads_labels_does_not_go_with_mixed_batches(table):
    made = learning.distiller(table, [TermSpec("remembers", 1.0, Remembers)])
    preflight(made, [learning.students(taught=())], table, 4, False)
    mixed = replace(table, mix=MixSpec(name="mixup"))
    with pytest.raises(TrainingError, match=r"'remembers' of student updates its state at each call, and a mixed batch"):
        preflight(made, [learning.students(taught=())], mixed, 4, False)


class KeepsPlainTensor(DistillationLoss):
    """A moving centre in a plain attribute, and a constant that the first call computes."""

    def setup(self, example):
        self.centre, self.constant, self.calls = torch.zeros(2), None, 0

    def forward(self, ctx):
        if self.constant is None:
            self.constant = torch.ones(2)
        self.calls += 1
        self.centre = 0.9 * self.centre + 0.1 * ctx.student.logits.detach().mean(0)
        return F.mse_loss(ctx.student.logits * self.constant, self.centre.expand_as(ctx.student.logits))


def test_state_in_plain_attributes_is_found(table):
    terms = [*learning.default_terms(), TermSpec("plain", 1.0, KeepsPlainTensor)]
    found = preflight(learning.distiller(table, terms), [learning.students()], table, 4, False)
    assert {check.term: set(check.unsaved) for check in found.terms} == {
        "labels": set(),
        "imitate": set(),
        "plain": {"centre", "calls"},
    }


class Keeps(DistillationLoss):
    """Keeps something, and changes it in each call."""

    def __init__(self, held, change):
        super().__init__()
        self.change = change
        if isinstance(held, torch.Tensor):
            self.register_buffer("held", held, persistent=False)
        else:
            self.held = held

    def forward(self, ctx):
        self.change(self)
        return ctx.student.logits.square().mean()


def add_one(loss):
    loss.held = loss.held + 1


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (lambda: torch.zeros(2), add_one),
        (lambda: np.zeros(2), add_one),
        (lambda: [0.5], lambda loss: loss.held.append(loss.held.pop() / 2)),
        (lambda: {"a": {"b": 0.0}}, lambda loss: loss.held["a"].update(b=loss.held["a"]["b"] + 1)),
        (lambda: deque([1, 0, 0]), lambda loss: loss.held.rotate()),
        (lambda: torch.Generator(), lambda loss: torch.rand(1, generator=loss.held)),
        (lambda: np.random.default_rng(0), lambda loss: loss.held.random()),
        (lambda: np.random.RandomState(0), lambda loss: loss.held.rand()),
        (lambda: random.Random(0), lambda loss: loss.held.random()),
        (lambda: "", lambda loss: setattr(loss, "held", loss.held + "x")),
    ],
    ids=["buffer", "array", "list", "dictionary", "deque", "generator", "numpy", "legacy numpy", "python", "text"],
)
def test_state_of_any_kind_is_found_where_a_checkpoint_would_miss_it(table, make, change):
    def unsaved(change):
        made = learning.distiller(table, [TermSpec("keeps", 1.0, lambda: Keeps(make(), change))])
        (check,) = preflight(made, [learning.students(taught=())], table, 4, False).terms
        return check.unsaved

    assert unsaved(change) == ("held",)
    assert unsaved(lambda loss: None) == ()


class OwnOptimizer(DistillationLoss):
    """Trains a critic with an optimizer of its own, and clears the critic's gradients or leaves them."""

    def __init__(self, name, leaves):
        super().__init__()
        self.critic, self.leaves = torch.nn.Linear(2, 1), leaves
        self.optimizer = getattr(torch.optim, name)(self.critic.parameters(), lr=0.1)

    def forward(self, ctx):
        self.critic(ctx.student.logits.detach()).square().mean().backward()
        self.optimizer.step()
        if not self.leaves:
            self.optimizer.zero_grad()
        return ctx.student.logits.square().mean()


@pytest.mark.parametrize(("name", "unsaved"), [("Adam", ("optimizer",)), ("SGD", ())])
def test_the_state_of_an_optimizer_of_its_own_is_not_saved(table, name, unsaved):
    made = learning.distiller(table, [TermSpec("own", 1.0, lambda: OwnOptimizer(name, leaves=False))])
    (check,) = preflight(made, [learning.students(taught=())], table, 4, False).terms
    assert check.unsaved == unsaved


class CallsBackward(DistillationLoss):
    """Calls backward on the learner's graph."""

    def forward(self, ctx):
        value = ctx.student.logits.square().mean()
        value.backward(retain_graph=True)
        return value


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (CallsBackward, r"'\S+' of the encoder of student"),
        (lambda: OwnOptimizer("SGD", leaves=True), "'critic.weight' of the loss"),
    ],
)
def test_a_loss_that_leaves_gradients_in_parameters_is_refused(table, make, where):
    made = learning.distiller(table, [TermSpec("own", 1.0, make)])
    with pytest.raises(TrainingError, match=rf"^term 'own' of student calls backward, which leaves a gradient in {where}; "):
        preflight(made, [learning.students(taught=())], table, 4, False)


class MadeLate(Remembers):
    """Creates its buffer in the first call."""

    def __init__(self):
        super(Remembers, self).__init__()

    def forward(self, ctx):
        if not hasattr(self, "calls"):
            self.register_buffer("calls", torch.zeros(()))
        return super().forward(ctx)


def test_buffers_created_too_late_are_named_for_mixed_batches_too(table):
    made = learning.distiller(table, [TermSpec("late", 1.0, MadeLate)])
    with pytest.raises(TrainingError, match=r"term 'late' of student: calls: created during training"):
        preflight(made, [learning.students(taught=())], replace(table, mix=MixSpec(name="mixup")), 4, False)


class Resized(DistillationLoss):
    """A bank of samples, sized by the first batch."""

    def __init__(self, early):
        super().__init__()
        self.early = early
        self.register_buffer("bank", torch.zeros(0))

    def setup(self, example):
        if self.early:
            self.bank = torch.zeros(example.num_samples)

    def forward(self, ctx):
        if not len(self.bank):
            self.bank = torch.zeros(len(ctx.batch.table))
        return F.mse_loss(ctx.student.logits[:, 0], self.bank[ctx.batch.rows])


def test_a_buffer_that_changes_its_shape_is_refused_by_name(table):
    terms = [TermSpec("bank", 1.0, lambda: Resized(False))]
    count = len(table.keys)
    with pytest.raises(TrainingError, match=rf"'terms.student.bank.bank' had the shape \(0,\) before .* \({count},\) after"):
        preflight(learning.distiller(table, terms), [learning.students(taught=())], table, 4, False)
