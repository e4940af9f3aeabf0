"""Losses that read all training samples before an epoch."""

from __future__ import annotations

from dataclasses import replace

import learning
import pytest
import torch
from torch.nn import functional as F

import kdcore
from kdcore import DistillationLoss, Needs
from kdcore.contracts.progress import Progress
from kdcore.errors import DataError, UsageError
from kdcore.recipe.data_models import MixSpec
from kdcore.training.checkpoint import Checkpoint
from kdcore.training.epoch_start import begin_epoch
from kdcore.training.participants import TermSpec
from kdcore.training.preflight import preflight
from kdcore.training.step import StageStep
from kdcore.training.tensor_loss import TensorLoss


class Centres(DistillationLoss):
    """Squared distance to the mean features of the sample's class in the teacher, computed before the first step."""

    needs = Needs(labels=True, teachers=1)

    def setup(self, example):
        self.register_buffer("centres", torch.zeros(example.num_classes, 4))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.seen = []

    def begin_epoch(self, samples):
        self.calls += 1
        if self.calls > 1:
            return
        torch.rand(3)
        found = list(samples)
        self.seen.append(found)
        for label in range(len(self.centres)):
            rows = [c.teachers["teacher"].features["features"][c.labels == label] for c in found]
            self.centres[label] = torch.cat(rows).mean(0)

    def forward(self, ctx):
        mine = ctx.student.features["features"].flatten(1)[:, :4]
        return F.mse_loss(mine, self.centres[ctx.labels].expand_as(mine))


class Unprepared(Centres):
    """The same, with centres of zero."""

    begin_epoch = DistillationLoss.begin_epoch


@pytest.fixture
def table(tmp_path):
    return learning.table(tmp_path)


def distiller(table, loss=Centres):
    return learning.distiller(
        table, [TermSpec("labels", 1.0, learning.Labels), TermSpec("centres", 1.0, loss, teachers=("teacher",))]
    )


def test_it_reads_every_sample_once_without_augmentation_before_the_first_step(table):
    made = distiller(table)
    loss, before = made.losses("student")["centres"], learning.state_of(made.participant("student"))
    rows, size = table.training_rows("train"), learning.SETTINGS.batch_size
    teacher, student = made.participant("teacher").eval(), made.participant("student").eval()
    with torch.no_grad():
        signals = table.batch(rows, ["teacher", "student"]).signals
        features = teacher(signals["teacher"]).features["features"]
        logits = student(signals["student"]).logits
    learning.fit(made, table, [learning.students(epochs=3)])
    (found,) = loss.seen
    assert [len(ctx.batch) for ctx in found] == [len(each) for each in rows.split(size)]
    torch.testing.assert_close(torch.cat([ctx.student.logits for ctx in found]), logits)
    for label in (0, 1):
        expected = sum(f for f, y in zip(features, table.train_labels[rows], strict=True) if y == label)
        torch.testing.assert_close(loss.centres[label], expected / int((table.train_labels[rows] == label).sum()))
    assert loss.calls == 3
    assert not any(ctx.student.logits.requires_grad for ctx in found)
    assert not learning.same_state(made.participant("student").state_dict(), before)


class Looks(Unprepared):
    """Iterates over the samples and draws random numbers, without any effect on its value."""

    def begin_epoch(self, samples):
        assert sum(len(ctx.batch) for ctx in samples)
        torch.rand(3)


def test_reading_the_samples_does_not_change_training(table):
    ended = []
    for loss in (Unprepared, Looks):
        made = distiller(table, loss)
        learning.fit(made, table, [learning.students(epochs=2)])
        ended.append(learning.state_of(made.participant("student")))
    assert learning.same_state(*ended)


def test_the_checks_before_training_call_it_and_restore_its_buffers(table):
    made = distiller(table)
    loss = made.losses("student")["centres"]
    assert preflight(made, [learning.students()], table, 4, withheld=False).terms[-1].value > 0
    assert len(loss.seen) == 1
    assert not loss.centres.any()
    assert loss.calls == 0


class Attribute(DistillationLoss):
    """Keeps what it reads in an attribute, which a run that is resumed within the epoch would lack."""

    needs = Needs(teachers=1)

    def begin_epoch(self, samples):
        self.kept = [float(ctx.student.logits.sum()) for ctx in samples]

    def forward(self, ctx):
        return ctx.student.logits.square().mean()


def test_what_is_kept_outside_buffers_is_said(table):
    unsaved = [
        preflight(distiller(table, loss), [learning.students()], table, 4, withheld=False).terms[-1].unsaved
        for loss in (Attribute, Looks)
    ]
    assert unsaved == [("kept",), ()]


class Moving(DistillationLoss):
    """Squared distance to the student's mean logits at the start of the epoch, of which each value is dropped at random."""

    needs = Needs(teachers=1)

    def setup(self, example):
        self.register_buffer("centre", torch.zeros(example.num_classes))

    def begin_epoch(self, samples):
        logits = torch.cat([ctx.student.logits for ctx in samples])
        self.centre.copy_((logits * torch.rand_like(logits).round()).mean(0))

    def forward(self, ctx):
        return F.mse_loss(ctx.student.logits, self.centre.expand_as(ctx.student.logits))


def test_resumed_from_every_step_training_ends_with_the_same_bits(table, tmp_path):
    kept, plan, settings = [], [learning.students(epochs=3)], learning.Settings(seed=3, batch_size=3, checkpoint_seconds=0)

    def save(weights, state):
        torch.save(state, tmp_path / "state.pt")
        kept.append(({key: value.clone() for key, value in weights.items()}, torch.load(tmp_path / "state.pt")))

    whole = distiller(table, Moving)
    learning.engine(whole, table, settings, save=save).fit(plan)
    assert {state["step"] > 0 for _, state in kept} == {True, False}, "within epochs and between them"
    for weights, state in list(kept):
        again = distiller(table, Moving)
        learning.engine(again, table, settings).fit(plan, Checkpoint(weights, state))
        assert learning.same_state(learning.state_of(again), learning.state_of(whole))


def test_random_numbers_depend_on_the_seed_alone_as_in_all_processes(table):
    made, stage, centres = distiller(table, Moving), learning.students(), []
    step = StageStep(made, stage, table, True)
    step.progress = {"student": Progress(stage.name, 0, 0, 2)}
    for seed, outside in ((5, 0), (5, 1), (6, 1)):
        torch.manual_seed(outside)
        begin_epoch(step, table.training_rows("train"), 3, seed)
        centres.append(made.losses("student")["centres"].centre.clone())
    assert torch.equal(centres[0], centres[1])
    assert not torch.equal(centres[1], centres[2])


class Unmixed(DistillationLoss):
    needs = Needs(teachers=1)

    def begin_epoch(self, samples):
        self.keys = [key for ctx in samples for key in ctx.batch.keys]

    def forward(self, ctx):
        return ctx.student.logits.square().mean()


def test_samples_are_not_mixed(table):
    made = distiller(table, Unmixed)
    learning.fit(made, replace(table, mix=MixSpec(name="mixup")), [learning.students(epochs=1)])
    assert made.losses("student")["centres"].keys == [table.keys[row] for row in table.training_rows("train").tolist()]


def test_a_data_loader_cannot_list_its_samples():
    x, y = torch.randn(8, 3), torch.arange(8) % 2
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=4)
    teacher, student = (torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)) for _ in range(2))
    with pytest.raises(
        DataError, match=r"the loss .* reads all training samples before an epoch, which a data loader cannot list"
    ):
        kdcore.distil(
            student,
            {"teacher": teacher},
            loader,
            [Looks()],
            epochs=1,
            taps={"student": {"features": "1"}, "teacher": {"features": "1"}},
        )


def test_a_loss_on_tensors_has_no_samples_either():
    with pytest.raises(UsageError, match="the loss 'Looks' reads all training samples before an epoch: use it in a recipe"):
        TensorLoss(Looks())(torch.zeros(2, 2), torch.zeros(2, 2), torch.zeros(2, dtype=torch.int64))
