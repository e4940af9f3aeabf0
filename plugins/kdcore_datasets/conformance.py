"""Conformance test cases for the datasets and protocols. Recordings cannot be shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdcore.testing import Case, NotApplicable


def _recordings(folder: Path) -> dict[str, Any]:
    raise NotApplicable("recordings are required and not shipped; test it with Case({'root': …})")


def _list_of_subjects(folder: Path) -> dict[str, Any]:
    (folder / "test.txt").write_text("2\n5\n", encoding="utf-8")
    return {"test": str(folder / "test.txt"), "validation_subjects": 1}


cases = {
    name: Case(_recordings)
    for name in (
        "utd-mhad",
        "berkeley-mhad",
        "mmact",
        "ntu-rgbd",
        "sensor-csv",
        "skeleton-collection",
        "skeleton-json",
        "skeleton-npz",
        "windows",
        "uci-har",
    )
} | {
    "synthetic-motion": Case({"subjects": 2, "trials": 1, "actions": ["wave", "punch"], "video_size": 16}),
    "leave-one-subject-out": Case({"test_subject": 3, "validation_subjects": 1}),
    "subject-folds": Case({"folds": 4, "fold": 2, "shuffle_seed": 0, "validation_subjects": 1}),
    "stratified-subject-folds": Case({"folds": 4, "fold": 2, "shuffle_seed": 0, "validation_subjects": 1}),
    "held-out-list": Case(_list_of_subjects),
    "explicit": Case({"train_subjects": [1, 2, 3], "test_subjects": [5, 6], "validation_subjects": [4]}),
    "disjoint-subjects": Case({"teacher_subjects": [1, 2], "student_subjects": [3, 4]}),
}
