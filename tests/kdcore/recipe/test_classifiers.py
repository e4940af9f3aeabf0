"""Answering through a teacher's classifier: what a recipe must say for that."""

from __future__ import annotations

import re

import pytest

BASE = """\
version: 1
name: reuse
data:
  dataset: {name: folder, root: /nowhere}
  protocol: halves
teachers:
  big: {modality: accelerometer, encoder: net, taps: {block: layers.0}}
  small: {modality: gyroscope, encoder: net, taps: {block: layers.0}}
student: {modality: skeleton, encoder: net, taps: {block: layers.0}, classifier_from: big}
losses: [cross-entropy, {name: feature, teacher: block, student: block}]
training: {epochs: 4}
"""
TOGETHER = "schedule={name: fixed, given: [{name: all, learners: [big, small, student]}]}"
ROUNDS = "schedule={name: fixed, given: [{name: t, learners: [big, small]}, {name: s, learners: [student]}]}"

REFUSED = {
    "nobody": (["student.classifier_from=bog"], "student", "there is no participant 'bog'"),
    "itself": (["student.classifier_from=student"], "student", "'student' cannot learn from itself"),
    "not a teacher of its own": (
        ["student.learns_from=[small]"],
        "student",
        "'student' does not learn from 'big', whose classifier it uses",
    ),
    "stored outputs": (
        ["teachers.file={outputs: a.npz}", "student.classifier_from=file"],
        "student",
        "'file' is a file of stored outputs, which has no classifier that could be used",
    ),
    "a moving average": (
        ["teachers.average={follows: student}", "student.classifier_from=average"],
        "student",
        "'average' is a moving average, so its classifier is not finished",
    ),
    "an untrained head": (
        ["teachers.big.weights={file: weights.safetensors, head: drop}", 'teachers.big.freeze=["*"]'],
        "student",
        "the classifier of 'big' is neither loaded nor trained (head: drop, and all is frozen)",
    ),
    "read by no term": (
        ["losses=[cross-entropy, {name: feature, teacher: block, student: block, teachers: [small]}]"],
        "student",
        "no term of 'student' reads 'big', so its features are not those of this classifier",
    ),
    "a peer": (
        ["teachers.big.learns_from=[student]", "teacher_losses=[cross-entropy, mutual]"],
        "student",
        "'big' is trained together with 'student', so its classifier is not finished",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_classifier_that_cannot_be_reused(name, problems):
    overrides, whose, message = REFUSED[name]
    found = [(each.path, each.message) for each in problems(BASE, *overrides)]
    assert (f"{whose}.classifier_from", message) in found


def test_an_average_has_no_classifier_of_its_own_choice(problems):
    (found,) = problems(BASE, "teachers.average={follows: student, classifier_from: big}")
    assert found.path == "teachers.average.classifier_from"
    assert found.message.startswith("'classifier_from' does not go with 'follows'")


def test_the_teacher_is_trained_before(load, problems):
    load(BASE)
    text = re.sub("training: .*\n", "", BASE)
    load(text, ROUNDS)
    found = problems(text, TOGETHER)
    said = "the schedule 'fixed' trains 'student' together with 'big', whose classifier it uses"
    assert [(each.message, each.hint) for each in found] == [(said, "train 'big' before")]
