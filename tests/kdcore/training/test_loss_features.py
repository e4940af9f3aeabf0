"""What losses may do beyond reading outputs: log numbers, read labels where known, see peers, have their own learning rate."""

from __future__ import annotations

from dataclasses import replace

import learning
import pytest
import torch
from learning import Labels
from torch import nn
from torch.nn import functional as F

from kdcore import Batch, DistillationLoss, LossContext, Needs, Outputs, ParameterGroup, Ramp
from kdcore.errors import TrainingError
from kdcore.training import randomness
from kdcore.training.participants import TermSpec
from kdcore.training.preflight import preflight
from kdcore.training.step import StageStep


@pytest.fixture
def table(tmp_path):
    return learning.table(tmp_path)


class Scaled(DistillationLoss):
    """Squared distance to the teacher's logits times a number that it learns and logs."""

    needs = Needs(teachers=1)

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, ctx):
        ctx.log("scale", self.scale)
        ctx.log("step", ctx.progress.step)
        return F.mse_loss(ctx.student.logits, self.scale * ctx.teachers["teacher"].logits)


SCALED = [TermSpec("labels", 1.0, Labels), TermSpec("scaled", 1.0, Scaled, teachers=("teacher",))]


def test_logged_numbers_are_tracked_once_an_epoch_as_means_over_its_batches(table):
    made = learning.distiller(table, SCALED)
    runner, values = learning.fit(made, table, [learning.students(epochs=3)])
    steps = runner.learners["student"].steps
    assert [*values["train/student/scaled/step"]] == [1, 2, 3]
    means = [sum(range(first, first + steps // 3)) / (steps // 3) for first in (0, steps // 3, 2 * steps // 3)]
    assert [*values["train/student/scaled/step"].values()] == pytest.approx(means)
    found = values["train/student/scaled/scale"]
    assert len(set(found.values())) == 3
    assert found[3] != made.losses("student")["scaled"].scale.item(), "each batch logs before its own step"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("weights", torch.ones(2), r"scalar, not a tensor of shape \(2,\)"), ("a/b", 1.0, "letters, digits")],
)
def test_only_scalars_with_plain_names_are_logged(name, value, message):
    context = LossContext(Outputs(torch.zeros(1, 2)), {}, Batch(torch.arange(1), {}, None))
    with pytest.raises(ValueError, match=message):
        context.log(name, value)


def test_what_parts_of_a_context_log_is_logged():
    context = LossContext(Outputs(torch.zeros(2, 2)), {}, Batch(torch.arange(2), {}, None))
    context.select(torch.tensor([1])).log("part", 2)
    context.of_classes(torch.tensor([0])).log("classes", torch.tensor([3.0]))
    assert {name: float(value) for name, value in context.logged.items()} == {"part": 2.0, "classes": 3.0}


class WhereKnown(DistillationLoss):
    """Cross-entropy where labels are known; keeps the labels that it was given."""

    needs = Needs(labels="optional")

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def forward(self, ctx):
        self.seen.append(ctx.labels.clone())
        return F.cross_entropy(ctx.student.logits, ctx.labels, ignore_index=-1, reduction="sum") + ctx.student.logits.mean()


@pytest.mark.parametrize("labelled", [True, False], ids=["partly", "withheld"])
def test_optional_labels_come_with_all_samples(table, labelled):
    seen: list = []
    made = learning.distiller(table, [TermSpec("known", 1.0, lambda: WhereKnown(seen))])
    rows = table.rows["train"][:6]
    labels = table.train_labels.clone()
    labels[rows[::2]] = -1
    step = StageStep(made, learning.students(taught=()), replace(table, train_labels=labels), labelled)
    _, (value,) = step(rows, rows)
    told = labels[rows] if labelled else torch.full((6,), -1)
    assert torch.equal(seen[0], told)
    logits = made.participant("student")(table.batch(rows, ["student"]).signals["student"]).logits
    expected = logits.mean() + sum(-logits[i].log_softmax(0)[told[i]] for i in range(6) if told[i] >= 0)
    assert not (made.participant("student").training)
    torch.testing.assert_close(value, expected.detach())


class Gate(DistillationLoss):
    """Weighs peers by a layer as wide as there are peers."""

    needs = Needs(peers=1)

    def setup(self, example):
        self.gate = nn.Linear(example.student.logits.shape[1], len(example.peers))

    def forward(self, ctx):
        weights = self.gate(ctx.student.logits.detach()).softmax(1)
        peers = torch.stack([each.logits for each in ctx.peers.values()], 2)
        return F.mse_loss(ctx.student.logits, (peers * weights[:, None]).sum(2))


def test_a_loss_sees_its_peers_when_it_is_set_up():
    from kdcore.training.tensor_loss import TensorLoss

    logits = [torch.randn(4, 3) for _ in range(3)]
    loss = TensorLoss(Gate()).setup(logits[0], peers={"a": logits[1], "b": logits[2]})
    assert loss.term.gate.out_features == 2
    assert loss(logits[0], peers={"a": logits[1], "b": logits[2]}).item() > 0


def test_losses_have_parameter_groups_of_their_own(table):
    """The scale's first SGD step is lr times factor times its gradient; a frozen one does not move."""

    def after_one_step(**group):
        made = learning.distiller(table, SCALED)
        options = {"parameter_groups": (ParameterGroup(("losses.scaled",), **group),)} if group else {}
        training = {"optimizer": {"name": "sgd", "lr": 0.01}, "batch_size": len(table.rows["train"]), **options}
        learning.fit(made, table, [learning.students(epochs=1, **training)])
        return made.losses("student")["scaled"].scale.item() - 1.0

    plain = after_one_step()
    assert plain != 0
    assert after_one_step(lr_factor=0.25) == pytest.approx(plain / 4, rel=1e-4)
    assert after_one_step(lr_factor=0.25, frozen_epochs=1) == 0.0


def test_a_group_with_a_factor_of_one_keeps_modules_out_of_later_groups(table):
    groups = (ParameterGroup(("losses.scaled",), lr_factor=1.0), ParameterGroup(("losses.*",), frozen_epochs=1))

    def scale(groups):
        made = learning.distiller(table, SCALED)
        learning.fit(made, table, [learning.students(epochs=1, parameter_groups=groups)])
        return made.losses("student")["scaled"].scale.item()

    assert scale(groups) == scale(()) != scale(groups[1:])


def test_a_star_means_the_encoder_and_not_the_losses(table):
    made = learning.distiller(table, SCALED)
    start = made.losses("student")["scaled"].scale.item()
    encoder = learning.state_of(made.participant("student").encoder)
    group = ParameterGroup(("*",), frozen_epochs=1)
    learning.fit(made, table, [learning.students(epochs=1, parameter_groups=(group,))])
    assert made.losses("student")["scaled"].scale.item() != start
    assert learning.same_state(made.participant("student").encoder.state_dict(), encoder)


class Idle(DistillationLoss):
    """Has a parameter without effect, as a gate over one peer has."""

    needs = Needs(teachers=1)

    def __init__(self):
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, ctx):
        return F.mse_loss(ctx.student.logits, self.gate.softmax(0) * ctx.teachers["teacher"].logits)


def test_parameters_of_a_loss_without_gradient_are_found(table):
    terms = [*SCALED, TermSpec("idle", 1.0, Idle, teachers=("teacher",))]
    found = preflight(learning.distiller(table, terms), [learning.students()], table, 4, False)
    assert {check.term: check.idle for check in found.terms} == {"labels": (), "scaled": (), "idle": ("gate",)}


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_a_ramp_may_begin_later(shape):
    later, now = Ramp(0.5, 2.0, 4, shape, after=3), Ramp(0.5, 2.0, 4, shape)
    assert [later.at(epoch) for epoch in range(3)] == [0.5] * 3
    assert [later.at(epoch + 3) for epoch in range(8)] == [now.at(epoch) for epoch in range(8)]


def test_a_ramp_of_no_epochs_is_a_switch():
    """An early stop of distillation after n epochs has the teacher's term in n epochs."""
    for after in (0, 1, 3):
        switch = Ramp(1.5, 0.25, 0, after=after)
        assert [switch.at(epoch) for epoch in range(5)] == [1.5] * after + [0.25] * (5 - after)


@pytest.mark.parametrize("alone", [True, False])
def test_a_ramp_that_begins_after_the_training_is_refused(table, alone):
    def checked(after):
        terms = [TermSpec("late", Ramp(0, 1, 1, after=after), Labels), TermSpec("labels", 1.0, Labels)][: 1 if alone else 2]
        return preflight(learning.distiller(table, terms), [learning.students(epochs=3, taught=())], table, 4, False)

    with pytest.raises(
        TrainingError, match="term 'late' of student has the weight 0 in every epoch: let its ramp begin earlier"
    ):
        checked(after=2)
    assert checked(after=1).terms[0].weight == 1


class Draws(DistillationLoss):
    """No gradient, but random numbers."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def forward(self, ctx):
        self.seen.append(torch.rand(3))
        return ctx.student.logits.sum() * 0.0


def test_random_numbers_of_a_loss_leave_those_of_the_networks_alone(table):
    """The students of these fixtures get noise in every batch, so other draws would give other weights."""

    def trained(*terms):
        made = learning.distiller(table, [TermSpec("labels", 1.0, Labels), *terms])
        learning.fit(made, table, [learning.students(epochs=2, taught=())])
        return made.participant("student").state_dict()

    first, second, third = [], [], []
    alone = trained()
    assert learning.same_state(trained(TermSpec("draws", 1.0, lambda: Draws(first))), alone)
    other = TermSpec("other", 1.0, lambda: Draws(second))
    assert learning.same_state(trained(other, TermSpec("draws", 1.0, lambda: Draws(third))), alone)
    assert len({tuple(each.tolist()) for each in first}) == len(first), "numbers repeat"
    for one, same, apart in zip(first, third, second, strict=True):
        assert torch.equal(one, same), "a term's numbers depend on its name only, not on other terms"
        assert not torch.equal(one, apart)


def test_terms_change_random_states_no_more_often_than_they_must(table, monkeypatch):
    """Each takes more than a microsecond: a tenth of the time of a tiny model's step."""
    kept = []
    state = randomness.GlobalGenerators.state
    monkeypatch.setattr(randomness.GlobalGenerators, "state", lambda generators: kept.append(1) or state(generators))
    made = learning.distiller(table, [TermSpec(f"labels-{number}", 1.0, Labels) for number in range(4)])
    rows = table.rows["train"][:6]
    StageStep(made, learning.students(taught=()), table, True)(rows, rows)
    assert len(kept) == 4 + 1


def test_an_average_of_a_network_that_is_not_evaluated_is_not_evaluated(table):
    from kdcore.contracts.training import MovingAverage
    from kdcore.training.participants import Average

    made = learning.distiller(table, [TermSpec("imitate", 1.0, learning.Imitate, teachers=("teacher",))])
    made.averages["average"] = Average("student", MovingAverage())
    found = preflight(made, [learning.students()], table, 4, False)
    assert found.answerless == ("student", "average")


class ReadsUndeclared(DistillationLoss):
    """Reads labels without saying so."""

    def forward(self, ctx):
        return F.cross_entropy(ctx.student.logits, ctx.labels)


def test_the_checks_hand_out_no_labels_that_training_would_withhold(table):
    """The rows checked first are labelled, but later ones are not."""
    made = learning.distiller(table, [TermSpec("labels", 1.0, Labels), TermSpec("undeclared", 1.0, ReadsUndeclared)])
    labels = table.train_labels.clone()
    labels[table.rows["train"][:2]] = -1
    with pytest.raises(ValueError, match=r"declare Needs\(labels=True\)"):
        preflight(made, [learning.students(taught=())], replace(table, train_labels=labels), 4, False)


def test_a_stream_on_a_gpu_saves_the_generators_of_the_cpu_and_of_that_gpu_only(monkeypatch):
    first, second = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "default_generators", (first, second))
    stream = randomness.RandomStream("loss", torch.device("cuda", 1), seed=5)
    outside, draws = [torch.get_rng_state(), first.get_state(), second.get_state()], []
    for _ in range(2):
        with stream:
            draws.append((torch.rand(3), torch.rand(3, generator=second)))
    after = [torch.get_rng_state(), first.get_state(), second.get_state()]
    assert all(map(torch.equal, outside, after))
    seeded = torch.Generator().manual_seed(randomness.derive(5, "loss"))
    expected = [torch.rand(3, generator=seeded) for _ in range(2)]
    for one, two in zip(draws, expected, strict=True):
        assert torch.equal(one[0], two)
        assert torch.equal(one[1], two)
    assert len(stream.state) == 2
