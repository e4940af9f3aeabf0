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
STEPS = 3  # of an epoch, on one subject
SEEDS, CHOOSING = [11, 12], [11]


def accuracy(path, who="student"):
    with np.load(path) as kept:
        return (kept[f"probabilities.{who}"].argmax(1) == kept["labels"]).mean()


def results(home, name, pattern):
    """Seed → accuracy, from the files of the runs whose name holds `name`."""
    found = {}
    for run in runs_of(home):
        facts = json.loads((run / "run.json").read_text())
        if facts["name"] == f"tiny-{name}":
            found |= {path.name.split("-")[1]: accuracy(path) for path in (run / "results").glob(pattern)}
    return found


@pytest.mark.slow
def test_a_comparison_is_killed_and_gone_on_with_and_trains_nothing_twice(tmp_path, database):
    home = Home(tmp_path / "methods", database).write(**QUICK, losses=LOSSES, seeds=SEEDS)
    command = ("compare-methods", str(home.recipe), "--grid", "0.5,2", "--choose", f"seeds={CHOOSING}")
    assert home.finish(*command, die=("os:fsync", 150)) < 0
    before = len(runs_of(home))
    assert before > 1, "it was killed too early"
    assert home.finish(*command) == 0, home.said()
    assert len(runs_of(home)) == 6  # two methods with two weights, and both with the best
    assert home.finish(*command) == 0, home.said()
    assert home.calls("compare-methods")[STEP] == 0

    for run in runs_of(home):  # weights are chosen without test samples
        facts = json.loads((run / "run.json").read_text())
        assert facts["part"] == ("validation" if "choosing" in facts["name"] else "test")

    told = next((home.folder / "runs" / "methods").glob("tiny-*.csv"))
    rows = {row["method"]: row for row in csv.DictReader(told.open())}
    assert set(rows) == {"soft-target", "dkd", "fitnet"}
    assert "needs the tap 'features'" in rows["fitnet"]["not_compared"]

    p_values = {}
    for name in ("soft-target", "dkd"):
        tried = {w: results(home, f"choosing-{name}-{w.replace('.', '-')}", "*-distilled.npz") for w in ("0.5", "2")}
        scores = {float(w): found["11"] for w, found in tried.items()}
        assert scores[float(rows[name]["weight"])] == max(scores.values())
        files = [run for run in runs_of(home) if f"-tiny-{name}-" in run.name]
        [run] = files
        distilled = [accuracy(run / "results" / f"seed-{seed}-distilled.npz") for seed in SEEDS]
        assert float(rows[name]["mean"]) == pytest.approx(np.mean(distilled))
        [reference] = [each for each in runs_of(home) if (each / "results" / "seed-11-baseline.npz").exists()]
        baseline = [accuracy(reference / "results" / f"seed-{seed}-baseline.npz") for seed in SEEDS]
        assert float(rows[name]["gain"]) == pytest.approx(np.mean(distilled) - np.mean(baseline), abs=1e-12)
        p = stats.ttest_rel(distilled, baseline).pvalue
        if not math.isnan(p) and rows[name]["p"]:
            assert float(rows[name]["p"]) == pytest.approx(p)
            p_values[name] = p
        assert float(rows[name]["step_seconds"]) > 0
    if len(p_values) == 2:
        low, high = sorted(p_values, key=p_values.get)
        assert float(rows[low]["p_holm"]) == pytest.approx(min(1, 2 * p_values[low]))
        assert float(rows[high]["p_holm"]) == pytest.approx(max(min(1, 2 * p_values[low]), p_values[high]))
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
    assert other.finish("compare-methods", str(other.recipe), "--grid", "1", "--jobs", "2", "--format", "csv") == 0, other.said()
    found = [list(csv.DictReader(text.splitlines())) for text in (alone, (other.folder / "stdout.txt").read_text())]
    for one, other_row in zip(*found, strict=True):
        for key in ("method", "weight", "mean", "gain", "p", "tried"):
            assert one[key] == other_row[key]
