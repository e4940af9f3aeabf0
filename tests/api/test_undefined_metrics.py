"""No epoch is the best by a metric that is undefined on the validation samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import kdcore
from kdcore import RecipeError, TrainingError

SUBJECTS = np.repeat(np.arange(6), 6)
random = np.random.default_rng(0)
SIGNALS = random.normal(size=(36, 32, 3)).astype(np.float32)


def recipe(*losses, data=None, teachers=(), **training):
    network = {"transforms": ["normalise"], "encoder": {"name": "cnn1d", "width": 4, "depth": 2}}
    protocol = {"name": "explicit", "train_subjects": [0, 1, 2, 3], "validation_subjects": [3], "test_subjects": [4, 5]}
    return {
        "version": 1,
        "name": "undefined",
        "data": {"protocol": protocol, "batch_size": 8, **(data or {})},
        **({"teachers": {name: {"modality": "other", **network} for name in teachers}} if teachers else {}),
        "student": {"modality": "wrist", **network},
        "losses": list(losses),
        "training": {"epochs": 1, **training},
        "baseline": False,
    }


def two_units():
    """Values in two units, whose R² is the primary metric; those of the validation subject are all equal."""
    values = random.normal(size=(36, 2))
    values[SUBJECTS == 3] = 60.0, 1.0
    units = {"rate": "bpm", "effort": "W"}
    return kdcore.ArrayDataset({"wrist": (SIGNALS, 32.0)}, values=values, classes=[*units], units=units, subjects=SUBJECTS)


@pytest.mark.parametrize(
    ("training", "key"),
    [
        ({"select": "best"}, "select"),
        ({"early_stopping": {"patience": 1, "metric": "r2"}}, "early_stopping"),
    ],
)
def test_a_choice_by_it_is_refused(training, key):
    with pytest.raises(RecipeError, match=rf"training\.{key}: .*R² is undefined on the validation samples"):
        kdcore.run(recipe("regression", **training), data=two_units())


def test_a_choice_by_the_loss_is_possible(tmp_path, monkeypatch):
    monkeypatch.setenv("KDCORE_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    tree = recipe("regression", select="best", early_stopping={"patience": 1, "metric": "loss"})
    assert kdcore.run(tree, data=two_units()).student() is not None


def test_a_teacher_without_signals_in_the_validation_split():
    others = [None if subject == 3 else signal for subject, signal in zip(SUBJECTS, SIGNALS, strict=True)]
    data = kdcore.ArrayDataset(
        {"wrist": (SIGNALS, 32.0), "other": (others, 32.0)}, labels=["walk", "talk", "wave"] * 12, subjects=SUBJECTS
    )
    tree = recipe("cross-entropy", "soft-target", data={"missing": "mask"}, teachers=["t"], select="best")
    with pytest.raises(RecipeError, match="no labelled validation sample has the signals of t"):
        kdcore.run(tree, data=data)


def test_a_loader_whose_validation_samples_have_no_label():
    x = torch.randn(8, 6)
    train, validation = [(x, (x[:, :3] > 0).float())], [(x, torch.zeros(8, 3))]
    with pytest.raises(TrainingError, match="student: map is undefined on the validation samples"):
        kdcore.distil(
            torch.nn.Linear(6, 3), torch.nn.Linear(6, 3), train, ["binary-cross-entropy", "bce"], target="labels",
            validation=validation, epochs=1, select="best",
        )  # fmt: skip
