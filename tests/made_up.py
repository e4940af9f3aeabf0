"""Finished runs made up to the number, without training anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kdcore import Facts, Outcome
from kdcore.runs.outcome import write_outcome
from kdcore.runs.records import outcome_file

FACTS = {
    "recipe_hash": "h",
    "split": "test",
    "split_rule": "subjects 1 train, 2 test",
    "counts": {"train": 10, "test": 20},
    "fingerprint": "abc",
    "classes": ["walk", "sit"],
    "selection": {"teacher": "last", "student": "last"},
    "modalities": {"teacher": ["skeleton"], "student": ["accelerometer"]},
    "arms": ["distilled", "baseline"],
    "versions": {"kdcore": "0.1.0"},
    "command": ["kdcore", "run", "x"],
}


def answers(right: int, labels: np.ndarray) -> np.ndarray:
    """Probabilities by which the first `right` of the samples are answered right."""
    said = np.where(np.arange(len(labels)) < right, labels, 1 - labels)
    return 0.9 * np.eye(2)[said] + 0.05


def made_up(
    folder: Path, distilled: dict, baseline: dict | None = None, name: str = "made", keys=None, labels=None, **facts
) -> Path:
    """A finished run in which, of 20 samples, this many are answered right for each seed; a tuple has one number a student."""
    labels = np.arange(20) % 2 if labels is None else np.asarray(labels)
    keys = keys or [f"subject 2, trial {n:02d}" for n in range(20)]
    arms = {"distilled": distilled, "baseline": baseline or {}}
    for arm, seeds in arms.items():
        for seed, right in seeds.items():
            several = (
                {f"student-{n}": each for n, each in enumerate(right, 1)} if isinstance(right, tuple) else {"student": right}
            )
            found = {student: answers(each, labels) for student, each in several.items()}
            teachers = ["teacher"] if arm == "distilled" else []
            found |= {each: answers(18, labels) for each in teachers}
            write_outcome(
                outcome_file(folder, seed, arm),
                Outcome(arm, found, labels, keys, dict.fromkeys(found, 42), 10.0 + seed, teachers, list(several), 1 << 20),
            )
    told = {**FACTS, "name": name, "variant": name, "seeds": list(distilled), **facts}
    told["arms"] = [arm for arm, seeds in arms.items() if seeds]
    (folder / "recipe.yaml").write_text(f"name: {name}\n")
    (folder / "run.json").write_bytes(Facts(**told).content())
    return folder
