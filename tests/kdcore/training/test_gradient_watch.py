"""A term whose gradient vanishes during training is said once, with numbers, and checking changes nothing."""

from __future__ import annotations

import math
import re

import learning
import pytest
import torch
from learning import Imitate, Labels, Recorded, distiller, engine, fit, same_state, state_of, students

from kdcore import DistillationLoss, Ramp
from kdcore.training.callback import Listener
from kdcore.training.checkpoint import Checkpoint
from kdcore.training.gradient_watch import LOOKS, GradientWatch
from kdcore.training.participants import TermSpec

STEPS = 4
"""Of an epoch: 12 rows in batches of 3."""


@pytest.fixture
def table(tmp_path):
    return learning.table(tmp_path)


class Counting(DistillationLoss):
    """Counts the batches it has seen, in a buffer, so that a resumed run goes on counting."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.seen = []

    def forward(self, ctx):
        self.count += 1
        self.seen.append((ctx.student.logits.detach(), ctx.labels))
        return self.value(ctx.student.logits)


class DetachesLater(Counting):
    def value(self, logits):
        return (logits if self.count <= 3 else logits.detach()).square().mean()


class Decays(Counting):
    """Its gradient is 1 at every logit at first, and 1e-12 after four steps."""

    def value(self, logits):
        return logits.sum() * 10.0 ** (-3 * min(4, int(self.count) - 1))


class Steady(Counting):
    def value(self, logits):
        return logits.square().mean() * 1e-3


class Features(DistillationLoss):
    """Reads features alone, so that its gradient on logits is 0."""

    def forward(self, ctx):
        return ctx.student.features["features"].square().mean()


class Said(Listener):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def trained(table, loss, epochs=3, weight=0.5, **options):
    terms = [TermSpec("labels", 1.0, Labels), TermSpec("odd", weight, loss, loss="loss 'odd' of plugin 'x'")]
    made, said = distiller(table, terms), Said()
    _, values = fit(made, table, [students(epochs=epochs, taught=(), **options)], listener=said)
    return made, said.lines, values


def test_there_are_as_many_steps_as_the_tests_assume(table):
    assert len(table.training_rows("train")) // 3 == STEPS


def test_a_term_that_detaches_after_three_steps_is_said_once(table):
    _, lines, values = trained(table, DetachesLater, epochs=4)
    assert len(lines) == 1
    assert "term 'odd' of student (loss 'odd' of plugin 'x') no longer matters in stage student, epoch 2" in lines[0]
    assert "is 0 with its weight against" in lines[0]
    assert values["train/student/odd/vanished"] == {2: 0.0}


class StartsLater(DistillationLoss):
    """Fills its memory in the first epoch."""

    def forward(self, ctx):
        return ctx.student.logits.square().mean() * float(ctx.progress.epoch > 0)


def test_a_term_that_has_not_started_is_not_said_to_have_ended(table):
    _, lines, _ = trained(table, StartsLater)
    assert len(lines) == 1
    assert "term 'odd' of student (loss 'odd' of plugin 'x') has had no effect in stage student, epoch 1" in lines[0]
    assert lines[0].endswith("If it starts later, for example with a memory that fills first, ignore this line")


def test_a_gradient_that_decays_is_said_with_its_size_and_that_of_the_largest(table):
    made, lines, values = trained(table, Decays, epochs=4)
    assert len(lines) == 1
    logits, labels = made.losses("student")["odd"].seen[2 * STEPS - 1]  # the last step of the second epoch
    odd = 0.5e-12 * math.sqrt(logits.numel())
    probabilities = logits.double().softmax(1)
    probabilities[torch.arange(len(labels)), labels] -= 1
    rival = float((probabilities / len(labels)).norm())
    found = re.search(r"epoch 2: .* is (\S+) with its weight against (\S+) of 'labels'", lines[0])
    assert found
    assert [float(each) for each in found.groups()] == pytest.approx([odd, rival], rel=0.05)  # two digits are shown
    assert list(values["train/student/odd/vanished"]) == [2]
    assert values["train/student/odd/vanished"][2] == pytest.approx(odd / rival, rel=1e-4)


@pytest.mark.parametrize("loss", [Steady, Features])
def test_a_term_that_goes_on_mattering_is_not_mentioned(table, loss):
    _, lines, values = trained(table, loss)
    assert not lines
    assert not any(key.endswith("vanished") for key in values)


def test_a_term_without_weight_yet_is_not_mentioned(table):
    _, lines, _ = trained(table, Steady, weight=Ramp(0, 1, 10), epochs=2)
    assert not lines


def test_epochs_of_one_step_are_judged_together(table):
    """One look at one batch is too little to judge by."""
    _, few, _ = trained(table, lambda: DetachesFromTheStart(), epochs=LOOKS - 1, batch_size=12)
    _, enough, _ = trained(table, lambda: DetachesFromTheStart(), epochs=LOOKS + 2, batch_size=12)
    assert not few
    assert len(enough) == 1
    assert f"epoch {LOOKS}" in enough[0]


class DetachesFromTheStart(Counting):
    def value(self, logits):
        return logits.detach().square().mean()


@pytest.mark.parametrize("loss", [DetachesLater, Steady, Features])
def test_looking_changes_no_number(table, monkeypatch, loss):
    looked, _, values = trained(table, loss)
    monkeypatch.setattr(GradientWatch, "begin_step", lambda *_: None)
    unwatched, lines, expected = trained(table, loss)
    assert not lines
    assert same_state(state_of(looked), state_of(unwatched))
    values.pop("train/student/odd/vanished", None)
    assert values == expected


def test_one_step_an_epoch_is_looked_at_while_every_term_matters(table, monkeypatch):
    looks = []
    real = GradientWatch.check
    monkeypatch.setattr(GradientWatch, "check", lambda self, terms: looks.append(len(terms)) or real(self, terms))
    trained(table, Steady, epochs=3)
    assert [number for number in looks if number] == [2, 2, 2]


def test_a_resumed_training_says_the_same_once(table):
    """Resumed from any checkpoint, what was said before and after it is what an uninterrupted training says."""
    terms = [
        TermSpec("labels", 1.0, Labels),
        TermSpec("odd", 0.5, DetachesLater),
        TermSpec("imitate", 1.0, Imitate, ("teacher",)),
    ]
    kept = []

    def run(checkpoint=None):
        made, said, recorded = distiller(table, terms), Said(), Recorded()
        save = (
            (lambda *_: None) if checkpoint else (lambda weights, state: kept.append(copied(weights, state, len(said.lines))))
        )
        settings = learning.Settings(3, 3, checkpoint_seconds=0)
        engine(made, table, settings, record=recorded, save=save, listener=said).fit(
            [students(epochs=4)], checkpoint and Checkpoint(*checkpoint)
        )
        return state_of(made), said.lines, recorded.values["train/student/odd/vanished"] if said.lines else {}

    whole, lines, record = run()
    assert len(lines) == 1
    assert len(kept) > STEPS
    for weights, state, before in kept:
        again, rest, recorded = run((weights, state))
        assert same_state(again, whole)
        assert lines[before:] == rest
        assert recorded == (record if rest else {})


def copied(weights, state, said):
    return {name: tensor.clone() for name, tensor in weights.items()}, torch.load(_stored(state), weights_only=True), said


def _stored(state):
    import io

    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return buffer
