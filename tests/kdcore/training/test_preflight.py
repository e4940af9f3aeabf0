"""Faults of losses are reported before the first step, and looking leaves no trace."""

from __future__ import annotations

import math

import learning
import pytest
import torch
import toys
from torch import nn
from torch.nn import functional as F

from kdcore import DistillationLoss, Example, Ramp
from kdcore.cli.console import show_preflight
from kdcore.data.pipeline import Pipeline
from kdcore.errors import TrainingError
from kdcore.training.participants import Distiller, TermSpec
from kdcore.training.preflight import preflight

STAGES = [learning.teachers(epochs=1), learning.students(epochs=1)]


class Labels(DistillationLoss):
    def forward(self, ctx):
        return F.cross_entropy(ctx.student.logits, ctx.labels)


class Detached(DistillationLoss):
    def forward(self, ctx):
        return ctx.student.logits.detach().square().mean()


class Elsewhere(DistillationLoss):
    """Has a gradient, but none that reaches the student."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, ctx):
        return self.scale * ctx.student.logits.detach().square().mean()


class NotANumber(DistillationLoss):
    def forward(self, ctx):
        return ctx.student.logits.mean() * math.nan


class BySample(DistillationLoss):
    """A number for every sample."""

    def forward(self, ctx):
        return ctx.student.logits.square().mean(dim=1)


class Mapped(DistillationLoss):
    """Answers after a map that is made by `made`; right if that is a module of its own."""

    def setup(self, example):
        self.odd = self.made()

    def made(self):
        return nn.Linear(2, 2)

    def forward(self, ctx):
        return self.answer(self.odd, ctx.student.logits).square().mean()

    def answer(self, held, logits):
        return held(logits)


class InADict(Mapped):
    def made(self):
        return {"teacher": [nn.Linear(2, 2)]}

    def answer(self, held, logits):
        return held["teacher"][0](logits)


class PlainTensor(Mapped):
    def made(self):
        return torch.ones(2, requires_grad=True)

    def answer(self, held, logits):
        return held * logits


class ShapedLate(Mapped):
    def made(self):
        return nn.LazyLinear(2)


class MadeLate(Mapped):
    def setup(self, example):
        self.odd = None

    def forward(self, ctx):
        self.odd = self.odd or nn.Linear(2, 2)
        return super().forward(ctx)


class FrozenInAList(InADict):
    """A participant that learns nothing may be kept anywhere."""

    def made(self):
        return {"teacher": [nn.Linear(2, 2).requires_grad_(False)]}


class Rarely(DistillationLoss):
    """No gradient on the first batch it sees."""

    def __init__(self):
        super().__init__()
        self.seen = 0

    def forward(self, ctx):
        self.seen += 1
        return ctx.student.logits.square().mean() * (self.seen > 1)


class Sure(DistillationLoss):
    """Samples whose prediction is certain; none is, so value and gradient are 0."""

    def forward(self, ctx):
        logits = ctx.student.logits
        return ((logits.softmax(1).amax(1) > 1) * F.cross_entropy(logits, logits.argmax(1), reduction="none")).mean()


class Flat(DistillationLoss):
    """A gradient of 0 at a value that is not 0: nothing that later batches change."""

    def forward(self, ctx):
        return ctx.student.logits.sum() * 0 + 1


class Nothing(DistillationLoss):
    """A value of 0 that does not depend on the student."""

    def forward(self, ctx):
        return ctx.student.logits.detach().sum() * 0


@pytest.fixture
def table(tmp_path):
    folder = tmp_path / "recordings"
    folder.mkdir()
    pipelines = {"teacher": Pipeline([toys.branch(toys.ANKLE)]), "student": Pipeline([toys.branch()])}
    return toys.table(toys.Files(toys.write(folder)), pipelines, tmp_path / "cache")


def distiller(table, loss, teaches=None, origin=""):
    made = Distiller({"teacher": toys.participant("teacher", 3)}, {"student": toys.participant("student", 2)}).eval()
    batch = table.batch(table.rows["train"][:2], ("teacher", "student"))
    for name in ("teacher", "student"):
        build = (lambda: loss(made)) if teaches else loss
        specs = [
            TermSpec("labels", 1.0, Labels),
            *([TermSpec("odd", 0.5, build, loss=origin)] if name == "student" and loss else []),
        ]
        example = Example(made(name, batch))
        made.add_terms(name, specs, lambda _, example=example: example)
    return made


def test_it_reports_every_term_and_shape_and_leaves_no_trace(table):
    made = distiller(table, Rarely)
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    torch.manual_seed(5)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    found = preflight(made, STAGES, table, 2, withheld=False)
    assert torch.equal(torch.rand(1), drawn)
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.state_dict().items())
    assert [(check.learner, check.term, check.weight) for check in found.terms] == [
        ("teacher", "labels", 1.0),
        ("student", "labels", 1.0),
        ("student", "odd", 0.5),
    ]
    assert all(check.gradient > 0 for check in found.terms)
    assert found.inputs == {"teacher": (3, 20), "student": (2, 10)}
    assert found.features["student"] == {"features": (4,)}
    assert found.parameters["student"] == (2 * 4 * 3 + 4) + 2 * 4 + (4 * 2 + 2)


@pytest.mark.parametrize(
    ("loss", "complaint"),
    [
        (Detached, r" gives no gradient: is its result detached, or does it not depend on student\?"),
        (Elsewhere, " gives no gradient"),
        (Flat, " gives no gradient"),
        (Nothing, " gives no gradient"),
        (NotANumber, ": its value is nan"),
        (BySample, r": it must return a scalar tensor, not one of shape \(2,\); average over the batch"),
        (InADict, ": what it holds in 'odd' would be neither trained nor saved; use .* nn.ModuleDict"),
        (PlainTensor, ": what it holds in 'odd' would be neither trained nor saved"),
        (MadeLate, r": odd\.weight, odd\.bias: created during training, too late for the optimizer; create them in setup"),
        (ShapedLate, r": odd\.weight, odd\.bias: created during training"),
    ],
)
def test_a_term_that_cannot_teach_or_learn_is_refused_by_name(table, loss, complaint):
    made = distiller(table, loss, origin="loss 'strange' of plugin 'mine'")
    with pytest.raises(TrainingError, match=rf"^term 'odd' of student \(loss 'strange' of plugin 'mine'\){complaint}"):
        preflight(made, STAGES, table, 2, withheld=False)


@pytest.mark.parametrize("loss", [Mapped, FrozenInAList])
def test_a_term_may_learn_and_keep_what_does_not(table, loss):
    assert preflight(distiller(table, loss), STAGES, table, 2, withheld=False).terms[-1].gradient > 0


def test_a_term_may_be_zero_on_the_first_batches(table):
    check = preflight(distiller(table, Sure), STAGES, table, 2, withheld=False).terms[-1]
    assert check.satisfied
    assert (check.value, check.gradient) == (0, 0)


class FromZero(DistillationLoss):
    """Scaled by an option that grows from 0, as an adversary's strength does; its value is not 0."""

    def forward(self, ctx):
        scale = ctx.progress.at(Ramp(0, 1, 2))
        return (ctx.student.logits * scale + ctx.student.logits.detach() * (1 - scale)).square().mean()


@pytest.mark.parametrize(("epochs", "refused"), [(1, True), (2, False), (9, False)])
def test_a_term_may_begin_without_a_gradient_if_it_has_one_in_the_last_epoch(table, epochs, refused):
    stages = [learning.students(epochs=epochs)]
    made = distiller(table, FromZero)
    if refused:
        with pytest.raises(TrainingError, match=r"^term 'odd' of student gives no gradient"):
            preflight(made, stages, table, 2, withheld=False)
    else:
        assert preflight(made, stages, table, 2, withheld=False).terms[-1].gradient > 0


class SquaredFromZero(DistillationLoss):
    """Mean square of the logits, times a ramp from 0."""

    def forward(self, ctx):
        return ctx.student.logits.square().mean() * ctx.progress.at(Ramp(0, 1, 2))


def test_values_of_the_last_epoch_are_not_shown_as_those_of_the_first_batch(table, capsys):
    found = preflight(distiller(table, SquaredFromZero), [learning.students(epochs=2)], table, 2, withheld=False)
    labels, odd = found.terms
    assert (labels.when, labels.first) == ("on the first batch", (labels.value, labels.gradient))
    assert odd.first == (0, 0)
    assert odd.when == "in the last epoch"
    assert odd.value > 0
    show_preflight(found)
    shown = capsys.readouterr().out
    row = next(line for line in shown.splitlines() if " odd " in line)
    assert " 0.0000 " in row
    note = f"The value of 'odd' of student in the last epoch is {odd.value:.4f}, with a gradient norm of {odd.gradient:.4g}."
    assert note in " ".join(shown.split())
    assert shown.count("The value of") == 1


class InPlace(DistillationLoss):
    """Replaces the state that its result was computed from."""

    def __init__(self):
        super().__init__()
        self.register_buffer("queue", torch.ones(1, 2))

    def forward(self, ctx):
        value = (ctx.student.logits * self.queue).square().mean()
        self.queue.copy_(ctx.student.logits.detach()[:1])
        return value


def test_a_term_that_changes_what_its_gradient_needs_is_refused_by_name(table):
    said = r"^term 'odd' of student: it changes a tensor in place .*; compute with a copy, such as self\.queue\.clone\(\)"
    with pytest.raises(TrainingError, match=said):
        preflight(distiller(table, InPlace), STAGES, table, 2, withheld=False)


def test_an_encoder_that_hides_what_should_learn_is_refused(table):
    made = distiller(table, None)
    made.participant("student").encoder.extra = [nn.Linear(2, 2)]
    with pytest.raises(TrainingError, match=r"^the encoder of student: what it holds in 'extra' would be neither"):
        preflight(made, STAGES, table, 2, withheld=False)


def test_a_term_that_trains_the_teacher_is_refused(table):
    class Reaching(DistillationLoss):
        """Asks the teacher on its own, with a graph."""

        def __init__(self, made):
            super().__init__()
            self.made = [made]

        def forward(self, ctx):
            teacher = self.made[0].participant("teacher")
            answer = teacher(table.batch(ctx.batch.rows, ["teacher"]).signals["teacher"])
            return (ctx.student.logits - answer.logits).square().mean()

    with pytest.raises(TrainingError, match="'odd' of student sends a gradient to teacher"):
        preflight(distiller(table, Reaching, teaches=True), STAGES, table, 2, withheld=False)
