from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from summaries import summary

from kdcore import load_recipe
from kdcore.cli.console import result_table
from kdcore.runs.journal import flattened
from kdcore.runs.outcome import Outcome
from kdcore.runs.records import Facts, FinishedRun
from kdcore.runs.setting import _objectives
from kdcore.runs.summary import _training_notes, summarise
from kdcore.runs.tracked_metrics import means


def test_the_terminals_table_has_the_numbers():
    from rich.console import Console

    console = Console(width=200, record=True, file=io.StringIO())
    found = summary(name="[red]odd")
    console.print(result_table(found))
    shown = console.export_text()
    assert "80.0 ± 5.0" in shown
    assert "teacher ensemble" in shown
    assert "[red]odd" in shown


def test_the_terminals_table_fits_a_terminal_with_few_seeds_or_many():
    from rich.console import Console

    for seeds in ((0,), (0, 1, 2), tuple(range(20))):
        console = Console(width=80, record=True, file=io.StringIO())
        console.print(result_table(summary(seeds=seeds)))
        shown = console.export_text()
        assert "…" not in shown
        assert ("seed 0" in shown) == (len(seeds) < 20)


def test_terms_keep_their_names_whatever_stands_before_them():
    terms = [{"id": "cross-entropy", "weight": 1.0}, {"id": "acs", "weight": 2.0}]
    assert flattened({"losses": terms})["losses.acs.weight"] == 2.0
    assert flattened({"losses": terms[1:]})["losses.acs.weight"] == 2.0
    steps = [{"name": "resample", "length": 32}, {"name": "jitter", "std": 0.1}, {"name": "jitter", "std": 0.2}]
    assert flattened({"transforms": steps})["transforms.2.std"] == 0.2
    assert flattened({"seeds": [0, 1], "teachers": {}}) == {"seeds": [0, 1], "teachers": {}}


def outcome(arm, students, right, teachers=()):
    """Everybody gets the first `right` of 8 samples right."""
    labels = np.arange(8) % 2
    answers = np.eye(2)[np.where(np.arange(8) < right, labels, 1 - labels)]
    everybody = dict.fromkeys((*teachers, *students), answers)
    return Outcome(arm, everybody, labels, [""] * 8, dict.fromkeys(everybody, 1), 1.0, teachers, students)


def summary_of(distilled, baseline=None, no_baseline="", distils=()):
    """The summary of one seed's outcomes, in a run whose recipe names everybody in them."""
    outcomes = {arm: {0: found} for arm, found in (("distilled", distilled), ("baseline", baseline)) if found}
    spec = SimpleNamespace(
        modalities=["rgb"], encoder=SimpleNamespace(name="cnn"), follows=None, learns_from=None, starts_from=None
    )
    students = dict.fromkeys(distilled.students, spec)
    teachers = dict.fromkeys(distilled.teachers, spec)
    data = SimpleNamespace(dataset=SimpleNamespace(name="d"), label_noise=0, labels="told", mix=None, sampler="shuffled")
    recipe = SimpleNamespace(
        name="r", description="", participants={**teachers, **students}, student_specs=students, teachers=teachers,
        fusion=None, schedule=SimpleNamespace(name="s"), data=data, specs={**teachers, **students},
        terms_of=lambda name: ("losses", []),
    )  # fmt: skip
    known = ("r", "", "", "test", "", {"test": 8}, "", ["a", "b"], {"student": "last"}, {}, [0], list(outcomes))
    facts = Facts(*known, no_baseline=no_baseline, distilled=distils)
    return summarise(recipe, FinishedRun(Path(), facts, outcomes))


def test_a_student_without_teachers_is_a_student():
    found = summary_of(outcome("distilled", ["student"], 6), no_baseline="the student has no teacher")
    assert [row.role for row in found.rows] == ["student"]
    assert found.answer == ""
    assert result_table(found).caption is None
    assert means(found)["student/accuracy"] == 0.75
    assert found.row("student").participant == "student"


def test_every_student_is_compared_with_itself_by_name():
    found = summary_of(outcome("distilled", ["a", "b"], 6), outcome("baseline", ["a", "b"], 4), distils=["a", "b"])
    assert list(found.differences) == ["a", "b"]
    assert found.answer.startswith("a: With distillation")
    assert " b: With distillation" in found.answer
    numbers = means(found)
    assert numbers["gain/a/mean"] == numbers["gain/b/mean"] == 0.25
    assert "gain/mean" not in numbers
    assert numbers["baseline/students (average)/accuracy"] == numbers["baseline/a/accuracy"] == 0.5
    assert numbers["distilled/students (average)/accuracy"] == numbers["distilled/b/accuracy"] == 0.75


def test_a_student_that_only_the_distilled_arm_has_is_not_compared():
    distilled = outcome("distilled", ["first", "second"], 6, ["teacher"])
    found = summary_of(distilled, outcome("baseline", ["second"], 4), distils=["first", "second"])
    assert list(found.differences) == ["second"]
    assert found.row("distilled").participant == "second"
    assert [row.participant for row in found.rows if row.arm == "baseline"] == ["second"]
    assert means(found)["gain/mean"] == 0.25


def test_a_note_names_its_seeds_if_others_lack_it():
    def trained(*notes):
        return replace(outcome("distilled", ["student"], 6), notes=notes)

    arms = {"distilled": [trained("a", "b"), trained("a", "c"), trained("a", "b")], "baseline": [trained("a")] * 3}
    expected = ["distilled: a", "distilled, seeds 4, 9: b", "distilled, seed 7: c", "baseline: a"]
    assert _training_notes(arms, [4, 7, 9]) == expected


def test_participants_that_were_evaluated_on_fewer_samples_are_named():
    distilled = outcome("distilled", ["student"], 6, ["skeleton", "gyroscope"])
    incomplete = distilled.probabilities["skeleton"].copy()
    incomplete[[1, 4]] = np.nan
    fewer = replace(distilled, probabilities={**distilled.probabilities, "skeleton": incomplete})
    notes = summary_of(fewer, outcome("baseline", ["student"], 4)).notes
    missing = "was evaluated on 6 of the 8 test samples; the others lack its signals"
    assert [note for note in notes if "evaluated on" in note] == [f"skeleton {missing}", f"teachers (mean) {missing}"]
    complete = summary_of(distilled, outcome("baseline", ["student"], 4)).notes
    assert not [note for note in complete if "evaluated on" in note]


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (
            "methods/contrastive-pretraining",
            [
                "pretrained (accelerometer, cnn1d) learned from skeleton (skeleton, cnn1d) with infonce",
                "fine-tuned (accelerometer, cnn1d) learned with cross-entropy, starting from pretrained",
            ],
        ),
        (
            "methods/takd",
            ["student (accelerometer, cnn1d) learned from assistant (accelerometer, cnn1d) with cross-entropy and soft-target"],
        ),
        (
            "quickstart",
            ["student (accelerometer, cnn1d) learned from skeleton (skeleton, cnn1d) with cross-entropy and soft-target × 4"],
        ),
    ],
    ids=str,
)
def test_the_setting_names_each_students_own_sources_and_terms(recipe, expected):
    assert _objectives(load_recipe(recipe)) == expected


def test_teachers_without_a_labelled_sample_have_no_row():
    distilled = outcome("distilled", ["student"], 6, ["skeleton", "gyroscope"])
    half = {"skeleton": slice(0, 4), "gyroscope": slice(4, 8)}
    outputs = {name: each.copy() for name, each in distilled.probabilities.items()}
    for name, rows in half.items():
        outputs[name][rows] = np.nan
    apart = summary_of(replace(distilled, probabilities=outputs), outcome("baseline", ["student"], 4))
    assert [row.participant for row in apart.rows] == ["skeleton", "gyroscope", "student", "student"]
    outputs["gyroscope"][:] = np.nan
    without = summary_of(replace(distilled, probabilities=outputs), outcome("baseline", ["student"], 4))
    assert [row.participant for row in without.rows] == ["skeleton", "student", "student"]
