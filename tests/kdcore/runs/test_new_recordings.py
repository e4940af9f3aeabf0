"""Evaluation of the students of a finished run on new recordings."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from runs import Home
from sensor_recordings import sensor_sections, write_recordings

from kdcore import Builder, DataError, KdcoreError, Sample, SampleKey, Signal, Unusable, UsageError, load_student
from kdcore.runs.new_recordings import _target, evaluate_recordings


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on recordings of four subjects: one of 1 and 3 trains, the other one validates, and 2 and 4 test."""
    folder = tmp_path_factory.mktemp("evaluated")
    root = write_recordings(folder / "recordings", seed=0)
    home = Home(folder / "home", folder / "mlflow.db")
    home.write(
        **sensor_sections(root, name="cross-subject", train_subjects=[1, 3], test_subjects=[2, 4], validation_subjects=1),
        seeds=[0],
        baseline=False,
        schedule={"name": "two-stage", "teachers": {"epochs": 1}, "student": {"epochs": 2}},
    )
    assert home.run() == 0, home.said()
    return home.runs[0], root


def evaluated(run: Path, root: Path, *overrides: str) -> list[str]:
    return list(evaluate_recordings(str(run), [f"data.dataset.root={root}", *overrides]))


def shown(line: str) -> tuple[float, int]:
    """The accuracy as a fraction, printed in per cent, and the number of samples in a line."""
    found = re.search(r"accuracy (\S+) %  macro F1 .* n (\d+)$", line)
    assert found, line
    return float(found[1]) / 100, int(found[2])


def accuracy_by_hand(run: Path, files: list[Path]) -> float:
    student = load_student(run / "students" / "seed-0" / "student")
    right = []
    for file in files:
        values = np.loadtxt(file, delimiter=",", skiprows=1)[:, :3].astype(np.float32)
        predicted = student.classes[student.predict({"accelerometer-watch": Signal(values, 50.0)})[0].argmax()]
        right.append(predicted == file.stem.split("_")[1])
    return float(np.mean(right))


def test_new_subjects_are_evaluated_with_their_own_labels(trained, tmp_path):
    run, _ = trained
    new = write_recordings(tmp_path / "new", seed=7, subjects=6)
    [line] = evaluated(run, new)
    expected = accuracy_by_hand(run, sorted(new.glob("*.csv")))
    assert shown(line) == (pytest.approx(expected, abs=6e-4), 24)


def test_recordings_in_another_unit_are_pointed_out(trained, tmp_path):
    run, _ = trained
    new = write_recordings(tmp_path / "new", seed=7)
    for file in new.glob("*.csv"):
        values = np.loadtxt(file, delimiter=",", skiprows=1)
        values[:, :3] /= np.linalg.norm(values[:, :3], axis=1, keepdims=True)
        np.savetxt(file, values, delimiter=",", header="ax,ay,az,gx,gy,gz", comments="")
    with pytest.warns(UserWarning, match=r"accelerometer-watch: .* as if in g, .* set the unit in the dataset's options"):
        evaluated(run, new)


def test_classes_are_matched_by_name(trained, tmp_path):
    """The new folder has one class of the run, whose index differs, and one that the run does not have."""
    run, _ = trained
    new = write_recordings(tmp_path / "new", seed=7)
    for file in new.glob("*_sit_*.csv"):
        file.rename(file.with_name(file.name.replace("sit", "zumba")))
    said, line = evaluated(run, new)
    assert said == "8 left out: the student does not know the class 'zumba'"
    assert shown(line) == (pytest.approx(accuracy_by_hand(run, sorted(new.glob("*_walk_*.csv"))), abs=6e-4), 8)


def test_recordings_that_were_trained_on_are_left_out_whatever_their_names(trained, tmp_path):
    run, root = trained
    new = write_recordings(tmp_path / "new", seed=7, subjects=1)
    for file in root.glob("s3_*.csv"):
        shutil.copy(file, new / file.name.replace("s3", "s9"))
    said, line = evaluated(run, new)
    assert said == "4 left out: the run trained on the recording"
    assert shown(line)[1] == 4
    for file in sorted(new.glob("s9_*"))[1:]:
        file.unlink()
    assert evaluated(run, new)[0] == "1 left out: the run trained on the recording"
    with pytest.raises(DataError, match=r"no recording can be evaluated: 8 left out: the run trained on the recording"):
        evaluated(run, shutil.copytree(root, tmp_path / "same", ignore=shutil.ignore_patterns("s2_*", "s4_*")))


def test_a_recording_without_a_label_has_no_target(trained):
    student = load_student(trained[0] / "students" / "seed-0" / "student")
    labelled = Sample(SampleKey("1", "walk", "1"), 0, {})
    others = SimpleNamespace(classes=student.classes[::-1])
    assert _target(labelled, others, student) == len(student.classes) - 1
    assert _target(replace(labelled, label=None), others, student) == "no label"


def test_damaged_recordings_are_an_error_or_counted(trained, tmp_path):
    run, _ = trained
    new = write_recordings(tmp_path / "new", seed=7, subjects=1)
    (new / "s1_walk_1.csv").write_text("ax,ay,az,gx,gy,gz\n1,2,x,4,5,6\n")
    with pytest.raises(DataError, match=r"s1_walk_1\.csv"):
        evaluated(run, new)
    said, line = evaluated(run, new, "data.on_bad_sample=skip")
    assert (said, shown(line)[1]) == ("1 left out: damaged", 3)


def test_what_is_left_out_is_said_once_for_all_seeds(trained, tmp_path):
    run = shutil.copytree(trained[0], tmp_path / trained[0].name)
    shutil.copytree(run / "students" / "seed-0", run / "students" / "seed-1")
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | {"seeds": [0, 1]}))
    shutil.copy(run / "results" / "seed-0-distilled.npz", run / "results" / "seed-1-distilled.npz")
    new = write_recordings(tmp_path / "new", seed=7)
    shutil.copy(next(trained[1].glob("*.csv")), new)
    lines = evaluated(run, new)
    assert len([line for line in lines if "accuracy" in line]) == 2
    assert len([line for line in lines if "left out" in line]) == 1


def test_all_recordings_that_break_while_they_are_listed_are_named(trained, tmp_path, monkeypatch):
    run, _ = trained
    new, dataset_of = write_recordings(tmp_path / "new", seed=7, subjects=1), Builder.dataset

    def dataset(builder):
        made = dataset_of(builder)
        samples = made.samples()
        made.samples, made.unusable = lambda: samples, [Unusable(f"{n}.csv", "empty", "has no rows") for n in (1, 2)]
        return made

    monkeypatch.setattr(Builder, "dataset", dataset)
    with pytest.raises(KdcoreError, match=r"cannot be used: 2 .*\n  1\.csv: has no rows\n  2\.csv: has no rows"):
        evaluated(run, new)
    said, *_, line = evaluated(run, new, "data.on_bad_sample=skip")
    assert (said, shown(line)[1]) == ("2 left out: empty", 4)


def test_only_the_dataset_can_be_overridden(trained, tmp_path):
    run, root = trained
    with pytest.raises(UsageError, match=r"evaluate accepts overrides of data\.dataset"):
        evaluated(run, root, "data.protocol.name=subject-specific")
