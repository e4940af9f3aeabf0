"""Outputs of several runs: each sample's are those of the run that tested on it, and a student that could profit says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from runs import Home
from safetensors import safe_open
from safetensors.torch import save_file

from kdcore import RunListener, SampleKey, UsageError, dry_run, load_recipe, read_run, summarise
from kdcore.runs.outputs import store_outputs
from kdcore.training.stored_outputs import STORED, load_outputs

FOLD = "data.protocol={{name: subject-folds, folds: 3, fold: {}}}"


@pytest.fixture(scope="module")
def folds(tmp_path_factory, database):
    """Three folds of one recipe, with taps, and a run of another recipe."""
    home = Home(tmp_path_factory.mktemp("folds"), database).write(
        seeds=[0], baseline=False, schedule={"name": "two-stage", "teachers": {"epochs": 2}, "student": {"epochs": 2}}
    )
    for number in (1, 2, 3):
        assert home.run(FOLD.format(number), f"name=fold-{number}", "student.taps={features: pool}") == 0, home.said()
    assert home.run("data.batch_size=4", "student.taps={features: pool}") == 0, home.said()
    by_name = {json.loads((folder / "run.json").read_text())["name"]: folder for folder in home.runs}
    return home, [by_name[f"fold-{number}"] for number in (1, 2, 3)], by_name["tiny"]


@pytest.mark.parametrize("suffix", STORED)
@pytest.mark.parametrize("participant", ["student", "skeleton"])
def test_each_samples_outputs_are_those_of_the_run_that_tested_on_it(folds, tmp_path, suffix, participant):
    """Compared with the test predictions that each run recorded."""
    _, runs, _ = folds
    counts = store_outputs(runs, participant, tmp_path / f"out{suffix}")
    assert counts == {run.name: 9 for run in runs}
    found = load_outputs(tmp_path / f"out{suffix}")
    assert not found.features
    exponents = np.exp(found.logits.astype(np.float64))
    stored = {str(key): row / row.sum() for key, row in zip(found.keys, exponents, strict=True)}
    assert len(stored) == 27
    for run in runs:
        outcome = read_run(run).outcomes["distilled"][0]
        assert len(outcome.keys) == 9
        for key, expected in zip(outcome.keys, outcome.probabilities[participant], strict=True):
            np.testing.assert_allclose(stored.pop(key), expected, rtol=1e-4)
    assert not stored


def test_a_file_lists_the_samples_that_its_networks_were_trained_on(folds, tmp_path):
    _, runs, _ = folds
    store_outputs(runs[0], "student", tmp_path / "one.npz")
    store_outputs(runs[:2], "student", tmp_path / "two.npz")
    tested = [{str(key) for key in read_run(run).outcomes["distilled"][0].keys} for run in runs]
    assert {str(key) for key in load_outputs(tmp_path / "one.npz").trained_on} == tested[1] | tested[2]
    assert {str(key) for key in load_outputs(tmp_path / "two.npz").trained_on} == tested[0] | tested[1] | tested[2]
    assert all(type(key) is SampleKey for key in load_outputs(tmp_path / "one.npz").trained_on)


def test_what_the_teacher_of_a_teacher_was_trained_on_counts(new_home, tmp_path):
    """The student learns from an assistant, and the assistant from a teacher that is trained on other subjects."""
    home = new_home(
        seeds=[0],
        baseline=False,
        schedule=None,
        training={"epochs": 1},
        data={
            "dataset": {"name": "synthetic-motion", "subjects": 3, "trials": 3, "actions": ["wave", "punch", "sit down"]},
            "protocol": {"name": "disjoint-subjects", "teacher_subjects": [1], "student_subjects": [2], "test_subjects": [3]},
            "batch_size": 3,
        },
    )
    soft = "losses: [cross-entropy, {name: soft-target, temperature: 4}]"
    assistant = f"{{like: skeleton, split: train, learns_from: [skeleton], {soft}}}"
    words = ["teachers.skeleton.split=teacher", f"teachers.assistant={assistant}", "student.learns_from=[assistant]"]
    assert home.run(*words) == 0, home.said()
    store_outputs(home.runs[0], "student", tmp_path / "out.npz")
    assert {key.subject for key in load_outputs(tmp_path / "out.npz").trained_on} == {"1", "2"}


def test_what_the_networks_behind_a_file_were_trained_on_counts(folds, tmp_path):
    """The file's networks were trained on the subjects of folds 2 and 3, and the student on those of folds 1 and 3."""
    home, runs, _ = folds
    store_outputs(runs[0], "skeleton", tmp_path / "one.npz")
    before = set(home.runs)
    words = [f"teachers={{skeleton: null, file: {{outputs: {tmp_path / 'one.npz'}}}}}", "student.learns_from=[file]"]
    assert home.run(FOLD.format(2), *words, "schedule=null", "training.epochs=1") == 0, home.said()
    [run] = set(home.runs) - before
    store_outputs(run, "student", tmp_path / "out.npz")
    assert len(load_outputs(tmp_path / "out.npz").trained_on) == 27


class Said(RunListener):
    """The lines of a run."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


SPLITS = pytest.mark.parametrize(
    ("protocol", "seen"),
    [
        ("{name: subject-folds, folds: 3, fold: 1}", ""),
        ("{name: cross-subject, train_subjects: [1, 3], test_subjects: [2], validation_subjects: 0}", "test"),
        ("{name: cross-subject, train_subjects: [2, 3], test_subjects: [1], validation_subjects: 1}", "validation"),
    ],
)
"""Splits of a run, and the one that fold 1's networks were trained on: they were trained on subjects 2 and 3."""


@SPLITS
@pytest.mark.parametrize(
    "file", ["teachers/seed-0/skeleton.safetensors", "students/seed-0/student", "students/seed-0/student/weights.safetensors"]
)
def test_a_run_whose_test_samples_pretrained_weights_were_trained_on_says_so(folds, protocol, seen, file):
    home, runs, _ = folds
    participant = "student" if "student" in file else "teachers.skeleton"
    listener = Said()
    dry_run(home.recipe, [f"{participant}.weights={runs[0] / file}", f"data.protocol={protocol}"], callbacks=[listener])
    said = [line for line in listener.lines if "were trained on" in line]
    name = participant.rpartition(".")[2]
    expected = (
        f"{name}: {Path(file).name}: its weights were trained on 9 of 9 {seen} samples of this run, so results on that split"
    )
    assert said == ([f"{expected} are too optimistic"] if seen else [])


def test_weights_that_were_trained_on_another_dataset_say_nothing(folds, tmp_path):
    home, runs, _ = folds
    file = tmp_path / "skeleton.safetensors"
    with safe_open(runs[0] / "teachers/seed-0/skeleton.safetensors", "pt") as opened:
        about = json.loads(opened.metadata()["kdcore"])
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
    about["trained_on"]["dataset"] = "utd-mhad"
    save_file(tensors, file, {"kdcore": json.dumps(about)})
    protocol = "{name: cross-subject, train_subjects: [1, 3], test_subjects: [2], validation_subjects: 0}"
    listener = Said()
    dry_run(home.recipe, [f"teachers.skeleton.weights={file}", f"data.protocol={protocol}"], callbacks=[listener])
    assert not [line for line in listener.lines if "were trained on" in line]


@SPLITS
def test_a_run_whose_test_samples_a_stored_teacher_was_trained_on_says_so(folds, tmp_path, protocol, seen):
    home, runs, _ = folds
    assert read_run(runs[0]).outcomes["distilled"][0].keys[0].startswith("subject 1,")
    store_outputs(runs[0], "skeleton", tmp_path / "one.npz")
    words = [f"teachers={{skeleton: null, file: {{outputs: {tmp_path / 'one.npz'}}}}}", f"data.protocol={protocol}"]
    listener = Said()
    dry_run(home.recipe, words, callbacks=[listener])
    said = [line for line in listener.lines if "trained on" in line]
    expected = f"file: the networks behind one.npz were trained on 9 of 9 {seen} samples of this run, so results on that split"
    assert said == ([f"{expected} are too optimistic"] if seen else [])


def test_a_stored_teacher_that_lacks_test_samples_is_named(folds, tmp_path):
    home, runs, _ = folds
    store_outputs(runs[1:], "skeleton", tmp_path / "others.npz")
    teachers = f"teachers={{skeleton: null, file: {{outputs: {tmp_path / 'others.npz'}}}}}"
    assert home.run(teachers, FOLD.format(1), "name=lacking") == 0, home.said()
    [folder] = [each for each in home.runs if "-lacking-" in each.name]
    lines = summarise(load_recipe(folder / "recipe.yaml"), read_run(folder)).notes
    assert "distilled: file is not evaluated: its stored outputs lack 9 of 9 test samples" in lines


def test_runs_that_are_no_folds_of_one_recipe_are_refused(folds, tmp_path):
    _, runs, other = folds
    with pytest.raises(UsageError, match=r"differ in data\.batch_size: outputs of several runs"):
        store_outputs([runs[0], other], "student", tmp_path / "out.npz")
    with pytest.raises(UsageError, match=rf"^{runs[0].name} is given twice$"):
        store_outputs([runs[0], runs[0]], "student", tmp_path / "out.npz")
    again = shutil.copytree(runs[0], tmp_path / "again")
    with pytest.raises(UsageError, match=rf"subject 1, .* is in the test splits of both {runs[0].name} and again"):
        store_outputs([runs[0], again], "student", tmp_path / "out.npz")
    facts = json.loads((again / "run.json").read_text())
    (again / "run.json").write_text(json.dumps(facts | {"fingerprint": "another"}))
    with pytest.raises(UsageError, match="were made on different recordings"):
        store_outputs([runs[1], again], "student", tmp_path / "out.npz")
    assert [each.name for each in tmp_path.iterdir()] == ["again"]


def test_the_command_takes_several_runs(folds, tmp_path):
    home, runs, _ = folds
    status = home.finish("outputs", *(run.name for run in runs), "--of", "student", "--output", str(tmp_path / "out.parquet"))
    assert status == 0, home.said()
    assert len(load_outputs(tmp_path / "out.parquet").keys) == 27
