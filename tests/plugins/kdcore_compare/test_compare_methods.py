"""Comparisons of methods for real, on the tiny recipe."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
from quick import QUICK, runs_of
from runs import Home
from scipy import stats

STEP = "torch.optim:AdamW.step"
LOSSES = ["cross-entropy", {"name": "soft-target", "temperature": 4}, "dkd", {"name": "fitnet", "weight": 0}]
STEPS = 3  # of the single epoch, on one subject
SEEDS, CHOOSING = [11, 12], [11]
LEARNING = {
    **QUICK,
    "schedule": {
        "name": "two-stage",
        "teachers": {"epochs": 4, "optimizer": {"name": "adamw", "lr": 0.01}},
        "student": {"epochs": 6, "optimizer": {"name": "adamw", "lr": 0.01}},
    },
    "engine": {"accelerator": "cpu", "threads": 1},
}


def accuracy(path, who="student"):
    with np.load(path) as kept:
        return (kept[f"probabilities.{who}"].argmax(1) == kept["labels"]).mean()


def finished(home):
    """Facts of its finished runs, by folder."""
    facts = {run: json.loads((run / "run.json").read_text()) for run in runs_of(home) if (run / "run.json").exists()}
    return {run: each for run, each in facts.items() if any((run / "results").glob("*.npz"))}


def by_hand(home, rows):
    """Difference and p value of every method from the files of its runs, after a check that its weight is the best one."""
    runs = finished(home)
    [reference] = [run for run in runs if (run / "results" / "seed-11-baseline.npz").exists()]
    baseline = [accuracy(reference / "results" / f"seed-{seed}-baseline.npz") for seed in SEEDS]
    found = {}
    for name in ("soft-target", "dkd"):
        tried = {}
        for run, facts in runs.items():
            if facts["name"].startswith(f"tiny-choosing-{name}-"):
                tried[facts["name"].removeprefix(f"tiny-choosing-{name}-").replace("-", ".")] = accuracy(
                    run / "results" / "seed-11-distilled.npz"
                )
        assert set(tried) == {"0.5", "2"}
        assert tried[rows[name]["weight"].removesuffix(".0")] == max(tried.values())
        [run] = [run for run, facts in runs.items() if facts["name"].startswith(f"tiny-{name}-")]
        distilled = [accuracy(run / "results" / f"seed-{seed}-distilled.npz") for seed in SEEDS]
        assert float(rows[name]["mean"]) == pytest.approx(np.mean(distilled))
        found[name] = (np.mean(distilled) - np.mean(baseline), stats.ttest_rel(distilled, baseline).pvalue)
    return found


@pytest.mark.slow
def test_a_comparison_is_killed_and_gone_on_with_and_trains_nothing_twice(tmp_path, database):
    home = Home(tmp_path / "methods", database).write(**LEARNING, losses=LOSSES, seeds=SEEDS)
    command = ("compare-methods", str(home.recipe), "--grid", "0.5,2", "--choose", f"seeds={CHOOSING}")
    assert home.finish(*command, die=(STEP, 60)) < 0  # in the third of four choices
    assert finished(home), "it was killed too early"
    assert home.finish(*command) == 0, home.said()
    assert len(finished(home)) == 6  # two methods with two weights, and both with the best
    assert home.finish(*command) == 0, home.said()
    assert home.calls("compare-methods")[STEP] == 0
    for facts in finished(home).values():  # weights are chosen without test samples
        assert facts["split"] == ("validation" if "choosing" in facts["name"] else "test")

    told = next((home.folder / "runs" / "methods").glob("tiny-*.csv"))
    rows = {row["method"]: row for row in csv.DictReader(told.open())}
    assert set(rows) == {"soft-target", "dkd", "fitnet"}
    assert "needs the tap 'features'" in rows["fitnet"]["not_compared"]
    expected = by_hand(home, rows)
    assert any(gain for gain, _ in expected.values()), "these methods change nothing, so the numbers prove nothing"
    for name, (gain, p) in expected.items():
        assert float(rows[name]["gain"]) == pytest.approx(gain, abs=1e-12)
        assert rows[name]["p"] == "" if math.isnan(p) or p == 0 else float(rows[name]["p"]) == pytest.approx(p)
        assert float(rows[name]["step_seconds"]) > 0
    page = told.with_suffix(".md").read_text()
    assert "fitnet: not compared:" in page
    assert f"Command: kdcore compare-methods {home.recipe}" in page
    assert json.loads(told.with_suffix(".json").read_text())["seeds"] == SEEDS


@pytest.mark.slow
def test_methods_are_trained_side_by_side_from_teachers_that_are_trained_once(tmp_path, database):
    seeds = [21, 22]  # no other test trains these teachers
    home = Home(tmp_path / "parallel", database).write(**QUICK, losses=LOSSES[:3], seeds=seeds)
    assert home.finish("compare-methods", str(home.recipe), "--grid", "1", "--format", "csv") == 0, home.said()
    trained = home.calls("compare-methods")[STEP]
    teachers = len(seeds) * STEPS
    students = 2 * len(seeds) * STEPS + 3 * len(seeds) * STEPS  # choosing; two methods and the baseline
    assert trained == teachers + students
    alone = (home.folder / "stdout.txt").read_text()

    other = Home(tmp_path / "jobs", database).write(**QUICK, losses=LOSSES[:3], seeds=seeds)
    assert other.finish("compare-methods", str(other.recipe), "--grid", "1", "--jobs", "2", "--format", "csv") == 0, (
        other.said()
    )
    found = [list(csv.DictReader(text.splitlines())) for text in (alone, (other.folder / "stdout.txt").read_text())]
    for one, other_row in zip(*found, strict=True):
        for key in ("method", "weight", "mean", "gain", "p", "tried"):
            assert one[key] == other_row[key]
