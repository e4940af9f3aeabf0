"""Sweeps of datasets with labels or values rank by what these are judged by."""

import csv

import numpy as np
import pytest
import yaml
from optuna.trial import TrialState
from sklearn.metrics import average_precision_score, mean_absolute_error
from window_targets import LABELS, VALUES, write_recipe

from kdcore import METRICS, RunListener, Stage, StoppedError, Target, Training, read_run
from kdcore_compare.sweep import sweep
from kdcore_compare.tables import Output
from kdcore_compare.trial_queue import TrialQueue
from kdcore_compare.trials import PruningListener


def read(file):
    with file.open() as lines:
        return list(csv.DictReader(lines))


@pytest.mark.parametrize(
    ("kind", "answers", "metric", "oracle", "sign"),
    [
        ("labels", LABELS, "map", lambda y, p: average_precision_score(y, p, average="macro"), -1),
        ("values", VALUES, "mae", mean_absolute_error, 1),
    ],
)
def test_points_are_ranked_by_the_targets_metric(tmp_path, monkeypatch, capsys, kind, answers, metric, oracle, sign):
    monkeypatch.setenv("KDCORE_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    rates = "training.optimizer.lr=0.0001,0.03"
    sweep(write_recipe(tmp_path, kind, answers), [], [rates], output=Output(path=tmp_path / "table.csv"))
    found = read(tmp_path / "table.csv")
    expected = {}
    for path in (tmp_path / "runs").glob("*/recipe.yaml"):
        run = read_run(path.parent)
        rate = yaml.safe_load(path.read_text())["training"]["optimizer"]["lr"]
        outcomes = run.outcomes["distilled"].values()
        assert run.facts.split == "validation"
        expected[str(rate)] = np.mean([oracle(each.labels, each.probabilities["student"]) for each in outcomes])
    assert len(expected) == 2
    got = {each["training.optimizer.lr"]: float(each[f"validation_{metric}"]) for each in found}
    assert got == pytest.approx(expected)
    assert list(got) == sorted(expected, key=lambda rate: sign * expected[rate])
    assert f"validation {METRICS[metric].title}" in capsys.readouterr().err


def test_the_study_minimises_errors_and_prunes_by_them(tmp_path):
    mae = Target("values", ("bpm",)).metric("mae")
    queue = TrialQueue(f"sqlite:///{tmp_path / 'sweeps.db'}", "s", [{}] * 7, tmp_path / "workers", mae, True)
    stage = Stage("student", ("student",), Training(), 10)
    pruned = []
    try:
        for value in (2.0, 2.0, 2.0, 2.0, 2.0, 9.0, 1.0):
            trial = queue.take()
            assert trial is not None
            listener = PruningListener(trial, 0, RunListener(), "mae")
            listener.arm_started(0, "distilled", [stage])  # type: ignore[list-item]
            try:
                for epoch in range(3):
                    listener.epoch_finished(stage, epoch, {"validation/student/mae": value})  # type: ignore[arg-type]
            except StoppedError:
                pruned.append(value)
                queue.prune_trial(trial)
            else:
                queue.complete(trial, value)
        assert pruned == [9.0]
        assert [each.value for each in queue.best_first()] == [1.0, 2.0, 2.0, 2.0, 2.0, 2.0]
        assert {each.state for each in queue.best_first()} == {TrialState.COMPLETE}
    finally:
        queue.close()


def test_a_metric_that_is_not_defined_fails_the_point(tmp_path, monkeypatch):
    """The subject that validates has none of the labels."""
    monkeypatch.setenv("KDCORE_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    labels = LABELS.copy()
    labels[36:42] = 0  # subject 6 validates
    sweep(
        write_recipe(tmp_path, "labels", labels),
        ["seeds=[0]"],
        ["training.epochs=1"],
        output=Output(path=tmp_path / "table.csv"),
    )
    found = read(tmp_path / "table.csv")
    assert [(each["validation_map"], each["state"]) for each in found] == [("", "fail")]
