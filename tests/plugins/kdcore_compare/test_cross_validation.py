"""Cross-validation: its folds, its numbers on made-up runs, and a real one."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import yaml
from made_up import made_up
from quick import QUICK, runs_of
from runs import TIME_LIMIT, Home
from scipy import stats
from sensor_recordings import sensor_sections, write_recordings

from kdcore import Builder, UsageError, load_recipe, read_run
from kdcore_compare.cross_validation import cross_validate
from kdcore_compare.cross_validation_report import (
    CrossValidation,
    cross_validation_records,
    cross_validation_tables,
    most_frequent_confusions,
)
from kdcore_compare.folds import Division, make_folds, subjects_of
from kdcore_compare.significance import paired

LABELS = [0, 1] * 10
BASELINE = {"1": {0: 10, 1: 12}, "2": {0: 8, 1: 8}, "10": {0: 15, 1: 13}}
DISTILLED = {"1": {0: 12, 1: 16}, "2": {0: 9, 1: 9}, "10": {0: 17, 1: 15}}


def fold_runs(tmp_path, distilled, baseline=None, **facts):
    """Label of a fold → its made-up run, tested on one subject."""
    found = {}
    for subject, right in distilled.items():
        keys = [f"subject {subject}, action a{n % 2}, trial {n:02d}" for n in range(20)]
        folder = made_up(
            tmp_path / f"subject-{subject}", right, baseline[subject] if baseline else None, "cv", keys,
            split_rule=f"subject {subject} tests", variant=f"v{subject}", **facts,
        )  # fmt: skip
        (folder / "recipe.yaml").write_text(yaml.safe_dump({"name": "cv", "data": {"protocol": subject}, "losses": []}))
        found[f"subject {subject}"] = [read_run(folder)]
    return found


@pytest.fixture
def result(tmp_path):
    return CrossValidation(
        "cv", fold_runs(tmp_path, DISTILLED, BASELINE), [0, 1], Division(), command="kdcore cross-validate cv"
    )


def row_of(table, label):
    return dict(zip(table.headings, next(row for row in table.rows if row[0] == label), strict=True))


def test_folds_count_once_and_pairs_are_scipys(result):
    table, *_ = cross_validation_tables(result)
    before, after = (np.array([np.mean(list(seeds.values())) / 20 for seeds in arm.values()]) for arm in (BASELINE, DISTILLED))
    theirs = stats.ttest_rel(after, before)
    low, high = theirs.confidence_interval(0.95)
    row = row_of(table, "student, distilled")
    assert row["accuracy, %"] == f"{100 * after.mean():.1f} ± {100 * after.std(ddof=1):.1f}"
    assert (row["lowest"], row["highest"]) == (f"{100 * after.min():.1f}", f"{100 * after.max():.1f}")
    assert row["difference"] == f"{100 * (after - before).mean():+.1f}"
    assert row["95 % interval"] == f"{100 * low:+.1f} to {100 * high:+.1f}"
    assert row["p"] == f"{theirs.pvalue:.3f}"
    assert row["folds"] == "3"
    assert row_of(table, "student, baseline")["difference"] == ""
    assert "60 test samples" in table.title
    assert any("paired Student's t-test, two-sided, 3 folds, 2 degrees of freedom" in note for note in table.notes)
    assert any("training sets of folds overlap" in note for note in table.notes)


def test_subjects_are_in_order_and_averaged_over_seeds(result):
    table = cross_validation_tables(result)[1]
    assert [row[0] for row in table.rows] == ["1", "2", "10"]
    assert table.rows[0][1:] == ["20", "55.0", "70.0", "+15.0"]


def test_the_confusion_is_pooled_over_folds_and_seeds(result):
    expected = np.zeros((2, 2), dtype=int)
    for right in (right for seeds in DISTILLED.values() for right in seeds.values()):
        for n, label in enumerate(LABELS):
            expected[label, label if n < right else 1 - label] += 1
    table = cross_validation_tables(result)[2]
    assert [[int(cell) for cell in row[1:]] for row in table.rows] == expected.tolist()
    pooled = row_of(cross_validation_tables(result)[0], "student, distilled")["pooled"]
    assert pooled == f"{100 * np.trace(expected) / expected.sum():.1f}"


def test_the_terminal_has_the_most_frequent_confusions_and_the_place_of_the_rest(result, tmp_path):
    table = cross_validation_tables(result, tmp_path / "all.md")[2]
    assert table.headings == ["", "true class", "predicted", "count", "of the class, %"]
    assert str(tmp_path / "all.md") in table.notes[0]
    confusion = np.array([[5, 1, 0], [7, 3, 0], [2, 0, 9]])
    assert most_frequent_confusions(confusion, "abc") == [
        ["b", "a", "7", "70.0"], ["c", "a", "2", "18.2"], ["a", "b", "1", "16.7"],
    ]  # fmt: skip


def test_records_have_every_fold_and_subject(result):
    found = list(cross_validation_records(result))
    folds = {each["fold"]: each["value"] for each in found if each["entry"] == "student, distilled" and each["fold"]
             and each["measure"] == "accuracy"}  # fmt: skip
    assert folds == pytest.approx({"subject 1": 0.7, "subject 2": 0.45, "subject 10": 0.8})
    subjects = {each["subject"]: each["value"] for each in found if each["entry"] == "student, baseline" and each["subject"]}
    assert subjects == pytest.approx({"1": 0.55, "2": 0.4, "10": 0.7})
    counts = [each["value"] for each in found if each["measure"] == "confusion" and each["entry"] == "student, distilled"]
    assert sum(counts) == 120


def test_without_a_baseline_there_is_no_difference(tmp_path):
    found = CrossValidation("cv", fold_runs(tmp_path, DISTILLED), [0, 1], Division())
    table, subjects, _ = cross_validation_tables(found)
    assert [row[0] for row in table.rows] == ["teacher teacher", "student, distilled"]
    assert "No difference: the recipe trains no baseline." in table.notes
    assert subjects.headings == ["subject", "samples", "student, distilled"]


def test_several_students_are_compared_each_with_its_own_baseline(tmp_path):
    distilled = {subject: {0: (15, 10 + n)} for n, subject in enumerate(DISTILLED)}
    baseline = {subject: {0: (12, 9 + n)} for n, subject in enumerate(DISTILLED)}
    found = CrossValidation("cv", fold_runs(tmp_path, distilled, baseline), [0], Division())
    rows = {row[0]: row for row in cross_validation_tables(found)[0].rows}
    assert [label for label in rows if "distilled" in label] == [
        "student-1, distilled", "student-2, distilled", "students, distilled",
    ]  # fmt: skip
    assert [rows[f"{name}, distilled"][6] for name in ("student-1", "student-2")] == ["+15.0", "+5.0"]


def test_repeated_folds_are_corrected_for_their_overlap(tmp_path):
    """Nadeau and Bengio's variance: (1/n + test/train) s², here with 20 test and 40 training samples."""
    runs = fold_runs(tmp_path, DISTILLED, BASELINE, counts={"train": 40, "test": 20})
    found = CrossValidation("cv", runs, [0, 1], Division(3, 2))
    difference = found.difference(*found.pairs[0], "accuracy")
    d = np.array([0.15, 0.05, 0.1])
    error = d.std(ddof=1) * np.sqrt(1 / 3 + 0.5)
    assert difference.mean == pytest.approx(0.1)
    assert (difference.low, difference.high) == pytest.approx(0.1 + np.array([-1, 1]) * stats.t.ppf(0.975, 2) * error)
    assert difference.p == pytest.approx(2 * stats.t.sf(0.1 / error, 2))
    assert difference.test.startswith("corrected resampled t-test (Nadeau and Bengio), two-sided, 3 folds")
    assert paired([0.15, 0.05, 0.1]).p < difference.p


@pytest.fixture
def recipe_file(tmp_path):
    root = write_recordings(tmp_path / "recordings", seed=0, subjects=11)
    sections = sensor_sections(root, name="cross-subject", validation_subjects=2)
    return str(Home(tmp_path / "home", tmp_path / "mlflow.db").write(**sections).recipe)


def test_folds_leave_every_subject_out_once(recipe_file):
    recipe = load_recipe(recipe_file)
    assert subjects_of(recipe) == [str(n) for n in range(1, 12)]
    folds = make_folds(recipe, Division())
    assert folds[1].label == "subject 2"
    assert folds[1].protocol == {"name": "leave-one-subject-out", "test_subject": 2, "validation_subjects": 2}
    assert len(folds) == 11


def test_repeated_folds_are_shuffled_each_in_its_own_way(recipe_file):
    recipe = load_recipe(recipe_file)
    assert [each.protocol["shuffle_seed"] for each in make_folds(recipe, Division(3))] == [None] * 3
    folds = make_folds(recipe, Division(3, 2))
    assert [each.label for each in folds[2:4]] == ["fold 3 of 3, repeat 1", "fold 1 of 3, repeat 2"]
    assert [each.protocol["shuffle_seed"] for each in folds] == [0, 0, 0, 1, 1, 1]


def test_a_split_that_folds_do_not_have_is_refused_with_what_to_add():
    with pytest.raises(UsageError, match=r"learns from the split 'teacher', .*: add schedule.teacher_split=train"):
        cross_validate("quickstart", [], Division())


@pytest.mark.parametrize(
    ("overrides", "division", "said"),
    [
        ([], Division(0, 2), "--repeats requires --folds"),
        ([], Division(1), "--folds must be at least 2"),
        ([], Division(99), "--folds 99: the recipe's data has"),
        ([], Division(stratified=True), "--stratified requires --folds"),
        ([], Division(lists=(Path("a.txt"),)), "at least 2 lists"),
        ([], Division(3, lists=(Path("a.txt"), Path("b.txt"))), "--list cannot be combined"),
        ([], Division(lists=(Path("x/a.txt"), Path("y/a.txt"))), "two lists are named 'a'"),
        (["data.protocol.validation_subjects=[1]"], Division(), "lists its validation subjects"),
    ],
)
def test_what_cannot_be_divided_is_refused(recipe_file, overrides, division, said):
    with pytest.raises(UsageError, match=said):
        make_folds(load_recipe(recipe_file, overrides), division)


def test_folds_may_be_stratified_or_listed(recipe_file, tmp_path):
    recipe = load_recipe(recipe_file)
    stratified = make_folds(recipe, Division(3, stratified=True))
    assert [each.protocol["name"] for each in stratified] == ["stratified-subject-folds"] * 3
    for number in (1, 2):
        (tmp_path / f"fold-{number}.txt").write_text(f"{number}\n")
    lists = tuple(tmp_path / f"fold-{number}.txt" for number in (1, 2))
    listed = make_folds(recipe, Division(lists=lists))
    assert [each.label for each in listed] == ["list fold-1", "list fold-2"]
    for number, fold in enumerate(listed, 1):
        builder = Builder(load_recipe(recipe_file, [f"data.protocol={json.dumps(fold.protocol)}"]))
        splits = builder.protocol().split(builder.dataset().samples())
        assert {each.key.subject for each in splits.samples["test"]} == {str(number)}
        assert {each.key.subject for each in splits.samples["validation"]} == {"10", "11"}


def finish(home, *command, **options):
    """Run a command that trains several folds; a busy machine may take minutes."""
    process = home.start(*command, **options)
    process.join(TIME_LIMIT)
    return process.exitcode


@pytest.mark.slow
def test_a_killed_cross_validation_goes_on_and_trains_nothing_twice(tmp_path, database):
    root = write_recordings(tmp_path / "recordings", seed=0)
    home = Home(tmp_path / "folds", database).write(**QUICK, **sensor_sections(root), seeds=[0])
    command = ("cross-validate", str(home.recipe), "--output", "table.csv")
    assert finish(home, *command, die=("os:fsync", 40)) == -signal.SIGKILL
    assert finish(home, *command) == 0, home.said()
    assert len(runs_of(home)) == 4
    tested = [{key.split(",")[0] for key in read_run(run).outcomes["distilled"][0].keys} for run in runs_of(home)]
    assert sorted(map(sorted, tested)) == [[f"subject {n}"] for n in (1, 2, 3, 4)]

    rows = list(csv.DictReader((home.folder / "table.csv").open()))
    overall = next(row for row in rows if (row["entry"], row["measure"], row["fold"]) == ("student, distilled", "accuracy", ""))
    accuracies = {}
    for run in runs_of(home):
        for arm in ("distilled", "baseline"):
            with np.load(run / "results" / f"seed-0-{arm}.npz") as kept:
                right = kept["probabilities.student"].argmax(1) == kept["labels"]
                accuracies.setdefault(arm, []).append(float(right.mean()))
    assert float(overall["value"]) == pytest.approx(np.mean(accuracies["distilled"]))
    assert float(overall["difference"]) == pytest.approx(np.mean(accuracies["distilled"]) - np.mean(accuracies["baseline"]))

    assert finish(home, *command, "--jobs", "2") == 0, home.said()
    assert len(runs_of(home)) == 4
    columns = {path.name for path in (home.database.parent / "cache").glob("*-watch-*")}
    assert len([name for name in columns if name.startswith("accelerometer-watch")]) >= 1
    write_recordings(root, seed=1)
    assert finish(home, *command, "--folds", "2", "--jobs", "2") == 0, home.said()
    assert len(runs_of(home)) == 6
    facts = [json.loads((run / "run.json").read_text()) for run in runs_of(home)]
    assert sum(each["split_rule"].startswith("Fold ") for each in facts) == 2
