"""``data.subjects``: the subjects of a dataset that are used, before the protocol splits them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcore import Builder, KdcoreError, load_recipe, recipe_splits
from kdcore_compare.folds import subjects_of


def recipe(root: Path, **data: Any):
    for subject in range(1, 6):
        for action in ("walk", "sit"):
            np.savetxt(root / f"{subject}_{action}.csv", np.ones((30, 3)) * subject, delimiter=",", header="x,y,z", comments="")
    (root / "4_walk.csv").write_bytes(b"")
    watch = {"pattern": "{subject}_{action}.csv", "columns": {"accelerometer": ["x", "y", "z"]}, "rate": 50}
    return load_recipe(
        {
            "version": 1,
            "name": "chosen",
            "data": {
                "dataset": {"name": "sensor-csv", "root": str(root), "devices": {"watch": watch}},
                "protocol": "cross-subject",
                **data,
            },
            "student": {"modality": "accelerometer-watch", "encoder": "cnn1d"},
            "losses": ["cross-entropy"],
        }
    )


def test_the_protocol_splits_the_chosen_subjects_only(tmp_path):
    """Every second of the chosen ones is a training subject; the others are counted by subject."""
    chosen = recipe(tmp_path, subjects=[1, 2, 5])
    builder = Builder(chosen)
    divided = recipe_splits(builder, builder.dataset())
    subjects = {split: {each.key.subject for each in samples} for split, samples in divided.splits.samples.items()}
    assert subjects["train"] == {"1", "5"}
    assert subjects["test"] == {"2"}
    left = [each for each in divided.dropped if each.reason == "subject not in data.subjects"]
    assert sorted(each.subject for each in left) == ["3", "3", "4", "4"]
    assert subjects_of(chosen) == ["1", "2", "5"]


def test_without_a_choice_all_subjects_are_used(tmp_path):
    every = recipe(tmp_path)
    builder = Builder(every)
    assert {each.key.subject for each in recipe_splits(builder, builder.dataset()).samples} == {"1", "2", "3", "4", "5"}
    assert subjects_of(every) == ["1", "2", "3", "4", "5"]


def test_unknown_subjects_are_named(tmp_path):
    builder = Builder(recipe(tmp_path, subjects=[1, 2, 7]))
    with pytest.raises(KdcoreError, match=r"data.subjects: the dataset has no subject '7' \(subjects are: 1, 2, 3, 4, 5\)"):
        recipe_splits(builder, builder.dataset())


def test_folds_have_the_subjects_whose_samples_the_recipe_uses(tmp_path):
    """Subject 5 has no belt, which only the teacher reads."""
    written = recipe(tmp_path).model_dump(mode="json", exclude_none=True)
    (tmp_path / "belt").mkdir()
    for path in tmp_path.glob("[1-4]_*.csv"):
        (tmp_path / "belt" / path.name).write_bytes(path.read_bytes())
    watch = written["data"]["dataset"]["devices"]["watch"]
    belt = {**watch, "pattern": "belt/{subject}_{action}.csv"}
    dataset = {"name": "sensor-csv", "root": str(tmp_path), "devices": {"watch": watch, "belt": belt}}
    teacher = {"modality": "accelerometer-belt", "encoder": "cnn1d"}
    student = {"modality": "accelerometer-watch", "encoder": "cnn1d"}
    found = {}
    for missing in ("drop", "mask"):
        data = {"dataset": dataset, "protocol": "cross-subject", "missing": missing}
        sections = {"teachers": {"belt": teacher}, "student": student, "losses": ["cross-entropy", "soft-target"]}
        found[missing] = subjects_of(load_recipe({"version": 1, "name": "belt", "data": data, **sections}))
    assert found == {"drop": ["1", "2", "3", "4"], "mask": ["1", "2", "3", "4", "5"]}


def test_folds_refuse_unknown_subjects(tmp_path):
    with pytest.raises(KdcoreError, match=r"data.subjects: the dataset has no subject '7'"):
        subjects_of(recipe(tmp_path, subjects=[1, 2, 7]))
