"""Steps that are not finite, losses that only grow, and students that are no better than chance."""

from __future__ import annotations

from copy import deepcopy

import learning
import numpy as np
import pytest
import torch
from learning import engine, fit, state_of, students

from kdcore import DistillationLoss, Target
from kdcore.errors import TrainingError
from kdcore.runs.outcome import Outcome
from kdcore.runs.summary import _chance_notes
from kdcore.training.callback import Listener
from kdcore.training.checkpoint import Checkpoint
from kdcore.training.divergence import growing_losses
from kdcore.training.engine import Settings
from kdcore.training.participants import TermSpec
from kdcore.training.step import StageStep

SKIPS = Settings(seed=3, batch_size=3, log_every=2, checkpoint_seconds=1e9, skipped_steps=3)


@pytest.fixture
def table(tmp_path):
    return learning.table(tmp_path)


class Says(Listener):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def spoil(monkeypatch, *steps, value=torch.nan):
    """Let the objective be no number at some of all steps, and running statistics with it."""
    calls = []
    real = StageStep.forward

    def forward(self, rows, local):
        calls.append(None)
        total, values = real(self, rows, local)
        if len(calls) - 1 in steps:
            with torch.no_grad():
                for buffer in (each for module in self.learning for each in module.buffers() if each.is_floating_point()):
                    buffer.data.fill_(torch.nan)
            return total * value, values
        return total, values

    monkeypatch.setattr(StageStep, "forward", forward)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_skipped_step_changes_nothing_but_the_count(table, monkeypatch, value):
    """The remaining training equals an optimizer's on the other steps alone."""
    spoil(monkeypatch, 1, 4, value=value)
    said = Says()
    runner, values = fit(learning.distiller(table), table, [students(epochs=2)], SKIPS, listener=said)
    weights = state_of(runner.distiller)
    assert all(bool(torch.isfinite(each).all()) for each in weights.values())
    learner = runner.learners["student"]
    steps = learner.steps
    assert steps == 2 * (len(table.training_rows("train")) // 3)
    taken = {int(each["step"]) for each in learner.optimizer.state_dict()["state"].values()}
    assert taken == {steps - 2}
    assert [line for line in said.lines if "skipped" in line] == [note for note in runner.notes if "skipped" in note]
    assert sum(int(note.split()[0]) for note in runner.notes if "skipped" in note) == 2
    assert all(np.isfinite(list(history.values())).all() for history in values.values())


def test_more_than_the_limit_stops(table, monkeypatch):
    spoil(monkeypatch, *range(1, 5))
    with pytest.raises(TrainingError, match=r"4 steps had a loss or gradient .* more than engine\.skipped_steps \(3\) allows"):
        fit(learning.distiller(table), table, [students(epochs=2)], SKIPS)


def test_without_skipping_the_first_stops(table, monkeypatch):
    spoil(monkeypatch, 1)
    with pytest.raises(TrainingError, match=r"is nan in stage student, epoch 1, step 2"):
        fit(learning.distiller(table), table, [students(epochs=2)])


def test_no_checkpoint_holds_weights_after_a_step_that_was_not_finite(table, monkeypatch):
    spoil(monkeypatch, 1)
    saved = []

    def keep(weights, state):
        saved.append(deepcopy(weights))

    settings = Settings(seed=3, batch_size=3, checkpoint_seconds=0)
    with pytest.raises(TrainingError, match="step 2"):
        engine(learning.distiller(table), table, settings, save=keep).fit([students()])
    assert saved
    assert all(bool(torch.isfinite(each).all()) for weights in saved for each in weights.values())


def test_nothing_finite_changes_when_skipping_is_allowed(table):
    plain, _ = fit(learning.distiller(table), table, [students(epochs=2)])
    allowed, _ = fit(learning.distiller(table), table, [students(epochs=2)], SKIPS)
    theirs = state_of(allowed.distiller)
    assert all(torch.equal(each, theirs[name]) for name, each in state_of(plain.distiller).items())


def test_resumed_after_a_skipped_step_it_ends_the_same(table, monkeypatch):
    spoil(monkeypatch, 1)
    settings = Settings(seed=3, batch_size=3, checkpoint_seconds=0, skipped_steps=2)
    kept = []
    made = learning.distiller(table)
    first = engine(made, table, settings, save=lambda weights, state: kept.append(deepcopy((weights, state))))
    first.fit([students(epochs=2)])
    monkeypatch.undo()
    weights, state = next(each for each in kept if each[1]["step"] == 3)
    again = learning.distiller(table)
    second = engine(again, table, settings)
    second.fit([students(epochs=2)], Checkpoint(weights, state))
    assert all(torch.equal(each, state_of(again)[name]) for name, each in state_of(made).items())
    assert (second.notes, second.skipping.count) == (first.notes, 1)


class Climbs(DistillationLoss):
    def forward(self, ctx):
        return ctx.student.logits.square().mean() * 0 + ctx.progress.epoch + 1 + 0 * ctx.student.logits.sum()


def test_a_loss_that_grew_in_every_epoch_is_said(table):
    terms = [TermSpec("climbs", 1.0, Climbs)]
    said = Says()
    runner, _ = fit(learning.distiller(table, terms), table, [students(epochs=3)], listener=said)
    expected = "the loss of student grew in every one of 3 epochs (student/climbs 1 to 3); the learning rate may be too large"
    assert runner.notes == [expected]
    assert expected in said.lines


@pytest.mark.parametrize(
    ("history", "said"),
    [
        ([[1.0], [2.0]], False),
        ([[1.0], [2.0], [2.0]], False),
        ([[1.0], [2.0], [3.0]], True),
        ([[3.0], [2.0], [1.0]], False),
    ],
)
def test_when_a_loss_counts_as_growing(history, said):
    assert bool(growing_losses(history, ["a/x"])) == said
    assert not growing_losses([[*row, -row[0]] for row in history], ["a/x", "a/y"]), "another term of it fell"
    assert bool(growing_losses([[*row, -row[0]] for row in history], ["a/x", "b/y"])) == said or history[0][0] == 3.0


def test_a_student_no_better_than_the_most_frequent_class_is_named():
    labels = np.array([0, 0, 0, 1, 2])
    probabilities = {"good": np.eye(3)[labels], "constant": np.eye(3)[[0] * 5], "teacher": np.eye(3)[[1] * 5]}
    found = {
        arm: [Outcome(arm, probabilities, labels, [], {}, 0.0, ["teacher"], ["good", "constant"])]
        for arm in ("distilled", "baseline")
    }
    notes = _chance_notes(found, {arm: [each.evaluations() for each in seeds] for arm, seeds in found.items()})
    assert [note.partition(" is no better than chance: ")[0] for note in notes] == [
        "teacher", "constant", "constant without distillation"
    ]  # fmt: skip
    assert "60.0 % accuracy, and 60.0 % by always predicting the most frequent class" in notes[1]


def test_of_values_a_larger_error_than_the_means_is_no_better_than_chance():
    """Lower is better for MAE; always 2, the mean of the training samples, is wrong by 1."""
    labels, target = np.array([[1.0], [3.0]]), Target("values", ("kg",), (2.0,), (1.0,))
    answers = {"good": labels + 0.5, "poor": labels + 1.5}
    found = {
        "distilled": [Outcome("distilled", answers, labels, [], {}, 0.0, [], ["good", "poor"], target=target, names=["m"])]
    }
    [note] = _chance_notes(found, {arm: [each.evaluations() for each in seeds] for arm, seeds in found.items()})
    assert note.startswith("poor is no better than chance: 1.500 kg MAE, and 1.000 kg by always estimating the mean")


def test_teachers_are_joined_where_all_of_them_answer():
    labels, gone = np.array([0, 1, 0]), [np.nan, np.nan]
    answers = {"a": np.array([gone, [0.2, 0.8], [0.6, 0.4]]), "b": np.array([[1.0, 0.0], gone, [0.2, 0.8]])}
    found = Outcome("distilled", answers, labels, list("xyz"), {}, 0.0, ["a", "b"], []).evaluations()["teachers (mean)"]
    assert found.rows.tolist() == [2]
    np.testing.assert_allclose(found.probabilities, [[0.4, 0.6]])
