"""Stages that end early: when scores no longer improve, or when a callback asks for it."""

from __future__ import annotations

import math

import learning
import numpy as np
import pytest
from learning import engine, fit, same_state, state_of
from lone_student import stage, student

from kdcore import EarlyStopping
from kdcore.errors import StoppedError, TrainingError
from kdcore.training.callback import Listener, reason_to_stop
from kdcore.training.checkpoint import Checkpoint
from kdcore.training.trained_teachers import TrainedStages
from kdcore.training.validation import Scores


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return learning.table(tmp_path_factory.mktemp("data"))


# Early stopping


def test_scores_by_loops():
    chances = np.random.default_rng(0).dirichlet(np.ones(3), 20).astype(np.float32)
    labels = np.random.default_rng(1).integers(0, 3, 20)
    found = Scores.of(chances, labels)
    assert found.loss == pytest.approx(-sum(math.log(chances[n][labels[n]]) for n in range(20)) / 20, rel=1e-6)
    assert found.value == sum(max(range(3), key=lambda c, n=n: chances[n][c]) == labels[n] for n in range(20)) / 20
    missing = np.vstack([chances, np.full((4, 3), np.nan)])
    assert Scores.of(missing, np.append(labels, [0, 0, 0, 0])) == found


def epochs_by_hand(scores, patience, least):
    """The epochs that are trained, by the definition."""
    for epoch in range(1, len(scores) + 1):
        records = [n for n in range(epoch) if all(scores[n] > each + least for each in running(scores[:n], least))]
        if epoch - 1 - records[-1] >= patience:
            return epoch
    return len(scores)


def running(scores, least):
    """Scores that counted as improvements."""
    found = []
    for each in scores:
        if not found or each > found[-1] + least:
            found.append(each)
    return found


@pytest.mark.parametrize(("metric", "patience", "least"), [("accuracy", 2, 0.0), ("loss", 2, 0.0), ("loss", 1, 0.05)])
def test_training_stops_when_it_no_longer_improves_and_restores_the_best(table, metric, patience, least):
    sgd = {"name": "sgd", "lr": 1.0}
    full, _, _ = student(table, norm=True)
    states, scores = [], []

    class Keeper(Listener):
        def epoch_finished(self, stage, epoch, metrics):
            states.append(state_of(full))

    watching = EarlyStopping(10**6, metric)
    _, values = fit(full, table, [stage(20, optimizer=sgd, early_stopping=watching)], listener=Keeper())
    sign = 1 if metric == "accuracy" else -1
    scores = [sign * each for each in values[f"validation/student/{metric}"].values()]
    length = epochs_by_hand(scores, patience, least)
    assert 1 < length < 20, "it does not stop early: choose another learning rate"
    made, _, _ = student(table, norm=True)
    rule = EarlyStopping(patience, metric, least)
    runner, _ = fit(made, table, [stage(20, optimizer=sgd, early_stopping=rule, select="best")])
    assert runner.learners["student"].epochs == length
    best = max(range(length), key=lambda epoch: (scores[epoch], -epoch))
    assert same_state(state_of(made), states[best])
    assert [each for each in runner.notes if f"ended after {length} of 20 epochs: validation {metric}" in each]


# Callbacks that stop a stage


class Stops(Listener):
    def __init__(self, after):
        self.after = after

    def epoch_finished(self, stage, epoch, metrics):
        return "enough" if epoch + 1 == self.after else None


def test_a_callback_ends_a_stage_and_the_next_one_begins(table, tmp_path):
    store = TrainedStages(tmp_path / "kept", {})
    states = []
    for listener in (Stops(1), None):
        made = learning.distiller(table)
        runner, _ = fit(
            made, table, [learning.teachers(epochs=3), learning.students(epochs=2)], listener=listener, trained=store
        )
        states.append(state_of(made.participant("teacher")))
        assert runner.learners["teacher"].epochs == (1 if listener else 3)
        assert runner.learners["student"].epochs == (1 if listener else 2)
        if listener:
            assert runner.notes == [
                "teachers ended after 1 of 3 epochs: enough",
                "student ended after 1 of 2 epochs: enough",
            ]
    assert not same_state(*states), "the stopped stage was reused"


@pytest.mark.parametrize("answer", [True, 3, ""])
def test_an_answer_that_is_no_reason_is_refused(answer):
    with pytest.raises(TrainingError, match="return the reason to end the stage as text, or None"):
        reason_to_stop([None, answer])
    assert reason_to_stop([None, "one", "other"]) == "one; other"


def test_a_stage_that_stops_early_as_the_process_is_asked_to_stop_is_not_trained_on(table):
    kept = []

    class Ends(Stops):
        def epoch_finished(self, stage, epoch, metrics):
            runner.stop_requested = epoch == 0
            return super().epoch_finished(stage, epoch, metrics)

    made, _, _ = student(table)
    runner = engine(made, table, save=lambda weights, state: kept.append((weights, state)), listener=Ends(1))
    with pytest.raises(StoppedError):
        runner.fit([stage(5)])
    again, _, _ = student(table)
    resumed = engine(again, table)
    resumed.fit([stage(5)], Checkpoint(*kept[-1]))
    assert resumed.learners["student"].epochs == 1
    assert resumed.notes == ["student ended after 1 of 5 epochs: enough"]
