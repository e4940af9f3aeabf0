"""What is wrong with losses is said before the first step, and looking leaves no trace."""

from __future__ import annotations

import math

import pytest
import torch
import toys
from torch.nn import functional as F

from kdcore import DistillationLoss, Example, Stage, Training
from kdcore.errors import TrainingError
from kdcore.training.distiller import Distiller, TermSpec
from kdcore.training.pipeline import Pipeline
from kdcore.training.preflight import preflight

STAGES = [
    Stage("teachers", ("teacher",), Training(epochs=1), 1),
    Stage("student", ("student",), Training(epochs=1), 1, teachers=("teacher",)),
]


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


class Rarely(DistillationLoss):
    """No gradient on the first batch it sees."""

    def __init__(self):
        super().__init__()
        self.seen = 0

    def forward(self, ctx):
        self.seen += 1
        return ctx.student.logits.square().mean() * (self.seen > 1)


@pytest.fixture
def table(tmp_path):
    folder = tmp_path / "recordings"
    folder.mkdir()
    pipelines = {"teacher": Pipeline([toys.branch(toys.ANKLE)]), "student": Pipeline([toys.branch()])}
    return toys.table(toys.Files(toys.write(folder)), pipelines, tmp_path / "cache")


def distiller(table, loss, teaches=None):
    made = Distiller({"teacher": toys.participant("teacher", 3)}, {"student": toys.participant("student", 2)}).eval()
    batch = table.batch(table.parts["train"][:2], ("teacher", "student"))
    for name in ("teacher", "student"):
        build = (lambda: loss(made)) if teaches else loss
        specs = [TermSpec("labels", 1.0, Labels), *([TermSpec("odd", 0.5, build)] if name == "student" and loss else [])]
        made.add_terms(name, specs, Example(made.answer(name, batch)))
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
        (Detached, "'odd' gives student no gradient: is its result detached"),
        (Elsewhere, "'odd' gives student no gradient"),
        (NotANumber, "'odd' of student: its value is nan"),
    ],
)
def test_a_term_that_teaches_nothing_is_refused(table, loss, complaint):
    with pytest.raises(TrainingError, match=complaint):
        preflight(distiller(table, loss), STAGES, table, 2, withheld=False)


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
