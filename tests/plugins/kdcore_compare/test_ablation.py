"""Ablations for real, on the tiny recipe."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from quick import QUICK, runs_of
from runs import Home

STEP = "torch.optim:AdamW.step"


@pytest.mark.slow
def test_an_ablation_is_killed_and_gone_on_with_and_trains_nothing_twice(tmp_path, database):
    home = Home(tmp_path / "ablation", database).write(**QUICK, seeds=[0])
    command = ("ablate", str(home.recipe))
    assert home.finish(*command, die=("os:fsync", 30)) < 0
    done = home.calls("ablate")
    assert not done, "it was not killed"
    assert home.finish(*command) == 0, home.said()
    first = home.calls("ablate")[STEP]
    assert len(runs_of(home)) == 2  # whole and without cross-entropy; no third one for what was killed
    assert [(run / "results" / "seed-0-baseline.npz").exists() for run in runs_of(home)].count(True) == 1
    table = next((home.folder / "runs" / "ablations").glob("tiny-*.md")).read_text()
    assert f"Command: kdcore ablate {home.recipe}" in table
    for row in ("| **full recipe** | **1** |", "| without cross-entropy | 1 |", "| baseline | 1 |", "| teacher skeleton | 1 |"):
        assert row in table

    assert home.finish(*command) == 0, home.said()
    assert home.calls("ablate")[STEP] == 0
    assert first > 0
    assert len(runs_of(home)) == 2

    assert home.finish(*command, "seeds=[0,1]") == 0, home.said()
    assert len(runs_of(home)) == 4  # the second seed alone is trained
    assert sorted(json.loads((run / "run.json").read_text())["seeds"] for run in runs_of(home)) == [[0], [0], [1], [1]]

    told = next((home.folder / "runs" / "ablations").glob("tiny-*.csv"))
    rows = [row for row in csv.DictReader(told.open()) if row["measure"] == "accuracy"]
    for label, arm, who in (("full recipe", "distilled", "student"), ("baseline", "baseline", "student")):
        expected = []
        for path in (home.folder / "runs").glob(f"*-full-recipe-*/results/*-{arm}.npz"):
            with np.load(path) as kept:
                expected.append((kept[f"probabilities.{who}"].argmax(1) == kept["labels"]).mean())
        assert len(expected) == 2
        row = next(each for each in rows if each["entry"] == label)
        assert float(row["mean"]) == pytest.approx(np.mean(expected))


@pytest.mark.slow
def test_variants_are_trained_side_by_side(tmp_path, database):
    home = Home(tmp_path / "parallel", database).write(**QUICK, seeds=[0])
    assert home.finish("ablate", str(home.recipe), "--jobs", "2", "--format", "markdown") == 0, home.said()
    assert len(runs_of(home)) == 2
    assert "| without cross-entropy | 1 |" in (home.folder / "stdout.txt").read_text()
    assert "full recipe: done" in home.said()
