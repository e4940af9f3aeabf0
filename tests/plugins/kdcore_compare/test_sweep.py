"""Sweeps for real, on the tiny recipe."""

from __future__ import annotations

import csv
import os
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from mlflow import MlflowClient
from optuna.distributions import IntDistribution
from optuna.trial import create_trial
from quick import QUICK, runs_of
from runs import Home

from kdcore import METRICS, Target, load_recipe, read_run
from kdcore_compare import sweep as sweep_module
from kdcore_compare.trial_queue import TrialQueue
from kdcore_mlflow import tracker as tracking


def table_of(home):
    return list(csv.DictReader((home.folder / "table.csv").open()))


@pytest.mark.slow
def test_a_sweep_is_killed_and_two_workers_finish_it(tmp_path, database):
    home = Home(tmp_path / "sweep", database).write(**QUICK, seeds=[0])
    command = ("sweep", str(home.recipe), "--grid", "losses.soft-target.weight=0.1,1,5", "--output", "table.csv")
    assert home.finish(*command, die=("os:fsync", 25)) == -signal.SIGKILL, home.said()
    begun = len(runs_of(home))
    workers = [home.start(*command) for _ in range(2)]
    for each in workers:
        each.join(200)
        assert each.exitcode == 0, home.said()
    assert begun >= 1
    assert len(runs_of(home)) == 3  # the killed one was gone on with
    found = {row["losses.soft-target.weight"]: row for row in table_of(home)}
    assert set(found) == {"0.1", "1", "5"}
    assert {row["state"] for row in found.values()} == {"complete"}

    for folder in runs_of(home):
        run = read_run(folder)
        assert run.facts.split == "validation"
        outcome = run.outcomes["distilled"][0]
        assert {key.split(",")[0] for key in outcome.keys} == {"subject 2"}  # validates; subject 3 tests
        accuracy = float(np.mean(outcome.probabilities["student"].argmax(1) == outcome.labels))
        weight = yaml.safe_load(run.recipe.read_text())["losses"][1]["weight"]
        assert float(found[f"{weight:g}"]["validation_accuracy"]) == accuracy

    client = MlflowClient(f"sqlite:///{home.database}")
    experiment = client.get_experiment_by_name("sweep")
    assert experiment
    runs = client.search_runs([experiment.experiment_id])
    kept = [run for run in runs if run.data.tags.get("kdcore.kind") == "sweep" and run.data.params["points"] == "3"]
    sweeps = [run for run in kept if run.data.tags["sweep"].startswith("tiny-")]  # other tests share the database
    assert len(sweeps) == 1
    points = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == sweeps[0].info.run_id]
    assert len(points) == 3
    assert sweeps[0].info.status == "FINISHED"
    assert sweeps[0].data.metrics["best/validation/accuracy"] == max(
        float(row["validation_accuracy"]) for row in found.values()
    )
    assert not any(name.startswith(("distilled/", "baseline/", "teacher")) for run in runs for name in run.data.metrics)


def test_choosing_needs_a_validation_split(tmp_path, database):
    home = Home(tmp_path / "no-validation", database).write(**QUICK)
    written = home.recipe.read_text().replace("validation_subjects: 1", "validation_subjects: 0")
    home.recipe.write_text(written)
    assert home.finish("sweep", str(home.recipe), "--grid", "losses.soft-target.weight=0.1,1") == 2
    assert "no validation split" in home.said()
    assert "data.protocol.validation_subjects" in home.said()
    assert not runs_of(home)


def test_a_wrong_value_is_named_before_anything_is_run(tmp_path, database):
    home = Home(tmp_path / "wrong", database).write(**QUICK)
    assert home.finish("sweep", str(home.recipe), "--grid", "losses.soft-target.weight=0.1,heavy") == 2
    assert "losses[1].weight" in home.said()
    assert home.finish("sweep", str(home.recipe), "data.labels=withheld", "--grid", "losses.soft-target.weight=0.1") in (1, 2)
    assert not runs_of(home)


@pytest.mark.slow
def test_a_search_stopped_on_request_goes_on(tmp_path, database):
    home = Home(tmp_path / "search", database).write(**QUICK, seeds=[0])
    command = (
        "sweep",
        str(home.recipe),
        "--search",
        "3",
        "--range",
        "losses.soft-target.weight=0.01:10:log",
        "--output",
        "table.csv",
    )
    process = home.start(*command)
    while not runs_of(home):
        time.sleep(0.05)
    time.sleep(0.5)
    assert process.pid
    os.kill(process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode in (143, -signal.SIGTERM)
    assert home.finish(*command) == 0, home.said()
    assert len(table_of(home)) == 3
    assert len(runs_of(home)) == 3


class Mlflow:
    """Takes up a run only when asked for the `fails` + 1st time."""

    def __init__(self, fails):
        self.left = fails

    def start(self, record, parent):
        self.left -= 1
        if self.left >= 0:
            raise ConnectionError("not yet")
        return "the-sweep"

    def send(self, run, records, folder):
        pass


@pytest.mark.parametrize(("fails", "parent"), [(4, "the-sweep"), (10_000, None)])
def test_points_wait_for_the_sweeps_run_but_not_for_ever(tmp_path, monkeypatch, capsys, fails, parent):
    store = Mlflow(fails)
    monkeypatch.setattr(tracking, "MlflowStore", lambda *_: store)
    monkeypatch.setattr(tracking, "SHORTEST_PAUSE", 0.01)
    monkeypatch.setattr(tracking, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(sweep_module, "MLFLOW_TIMEOUT", 30 if parent else 0.1)
    recipe = load_recipe(str(Home(tmp_path / "home", tmp_path / "mlflow.db").write(**QUICK).recipe))
    queue = TrialQueue(f"sqlite:///{tmp_path / 'sweeps.db'}", "s", [{}], tmp_path / "workers", METRICS["accuracy"])
    try:
        tags = sweep_module._trial_tags(queue, recipe, tmp_path)
    finally:
        queue.close()
    assert tags.get("mlflow.parentRunId") == parent
    assert tags["sweep"] == "s"
    assert ("points by the tag sweep=s" in capsys.readouterr().err) == (parent is None)


def test_a_wrong_ending_is_said_before_anything_is_run(tmp_path, database):
    home = Home(tmp_path / "ending", database).write(**QUICK)
    for command in (("sweep", str(home.recipe), "--grid", "losses.soft-target.weight=0.1"), ("ablate", str(home.recipe))):
        assert home.finish(*command, "--output", "table.pdf") == 2
    assert home.said().count("error: --output table.pdf: cannot tell the format from the suffix") == 2
    assert not runs_of(home)


@pytest.mark.parametrize(("values", "tied"), [((0.5, 0.8, 0.8), True), ((0.8, 0.5, 0.5), False), ((0.8,), False)])
def test_points_that_share_the_best_value_are_counted(values, tied):
    space = SimpleNamespace(keys=[SimpleNamespace(path="x")], source="r.yaml", overrides=[])
    recipe = SimpleNamespace(name="r", seeds=[0])
    trials = [
        create_trial(
            params={"x": n},
            distributions={"x": IntDistribution(0, 9)},
            value=value,
            user_attrs={"point": n, "scores": [value]},
        )
        for n, value in enumerate(values)
    ]
    target = Target("classes")
    queue = SimpleNamespace(
        metric=target.metric(target.primary),
        trials=lambda: trials,
        best_first=lambda: sorted(trials, key=lambda trial: -trial.value),
    )
    table, _ = sweep_module.sweep_table(space, queue, recipe)
    assert ("2 points share the best accuracy; the best point is the first of them." in table.notes) == tied
    assert table.rows[0][0] == str(int(np.argmax(values)))
