"""Steps of a trial, without training."""

from __future__ import annotations

import pytest
import yaml
from made_up import made_up
from optuna.trial import TrialState
from runs import tiny_recipe

from kdcore import METRICS, RunListener, Stage, StoppedError, Target, Training, TrainingError, read_run
from kdcore_compare import trials
from kdcore_compare.search_space import parse_space
from kdcore_compare.trial_queue import TrialQueue

STUDENT = Stage("student", ("student",), Training(), 10)
TEACHER = Stage("teachers", ("skeleton",), Training(), 10)


@pytest.fixture
def sweep(tmp_path):
    """A queue of ten points of the tiny recipe, and their space."""
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe(tmp_path / "mlflow.db", "tiny", seeds=[0])))
    points = parse_space(str(path), [], [], 10, ["losses.soft-target.weight=0.1:1"])
    queue = TrialQueue(
        f"sqlite:///{tmp_path / 'sweeps.db'}", "test", points.points(), tmp_path / "workers", METRICS["accuracy"], True
    )
    yield queue, points
    queue.close()


def training(accuracies, seed=0):
    """Stands in for training: the student's validation accuracy after each epoch; the last one counts."""

    def fake_ensure_runs(source, overrides, split, listener, say):
        assert split == "validation"
        assert "baseline=false" in overrides
        listener.arm_started(seed, "distilled", [TEACHER, STUDENT])
        for epoch, accuracy in enumerate(accuracies):
            listener.epoch_finished(TEACHER, epoch, {"validation/skeleton/accuracy": 0.0})
            listener.epoch_finished(STUDENT, epoch, {"validation/student/accuracy": accuracy})
        return []

    return fake_ensure_runs


def run_all(queue, points, monkeypatch, results):
    monkeypatch.setattr(trials, "validation_scores", lambda runs, seeds, metric: [0.5])
    for result in results:
        monkeypatch.setattr(trials, "ensure_runs", result)
        trials.run_trial(points, queue.take(), queue, {}, RunListener(), True, lambda text: None)
    return [trial.state for trial in queue.trials()]


def test_who_falls_behind_is_stopped(sweep, monkeypatch):
    good, bad = training([0.5, 0.6, 0.7]), training([0.1, 0.1, 0.1])
    states = run_all(*sweep, monkeypatch, [good] * 5 + [bad, good])
    assert states[:7] == [TrialState.COMPLETE] * 5 + [TrialState.PRUNED, TrialState.COMPLETE]
    assert sweep[0].trials()[5].last_step == 1


def test_an_epoch_without_a_metric_counts(sweep, monkeypatch):
    states = run_all(*sweep, monkeypatch, [training([float("nan"), 0.5, 0.6])])
    assert states[0] == TrialState.COMPLETE
    assert sweep[0].trials()[0].intermediate_values == {2: 0.5, 3: 0.6}


def test_other_seeds_than_the_first_are_not_watched(sweep, monkeypatch):
    states = run_all(*sweep, monkeypatch, [training([0.9])] * 5 + [training([0.1], seed=1)])
    assert states[5] == TrialState.COMPLETE


def test_training_that_fails_is_noted_and_a_stop_gives_the_point_back(sweep, monkeypatch):
    def diverges(*_):
        raise TrainingError("total is nan")

    def stopped(*_):
        raise StoppedError("stopped")

    queue, points = sweep
    run_all(queue, points, monkeypatch, [diverges])
    assert queue.trials()[0].user_attrs["error"] == "total is nan"
    with pytest.raises(StoppedError):
        run_all(queue, points, monkeypatch, [stopped])
    again = queue.take()
    while again and again.user_attrs["point"] != 1:
        again = queue.take()
    assert again


def test_the_result_is_the_students_mean_for_each_seed(tmp_path):
    run = read_run(made_up(tmp_path / "run", {0: 10, 1: 15}, split="validation"))
    assert trials.validation_scores([run], [1, 0], Target().metric("accuracy")) == [0.75, 0.5]
