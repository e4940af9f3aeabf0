"""Stages of the schedules, and progressive training as a whole."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from kdcore import Graph, LearningRate, Node, Stage, Training
from kdcore_schedules.schedules import Progressive, TwoStage


def test_teachers_learn_to_the_end_before_students():
    teachers, student = Training(epochs=7), Training(epochs=5)
    stages = TwoStage(teachers=teachers, student=student, teacher_split="teacher").stages(Graph.of(("a", "b"), ("s", "t")))
    assert list(stages) == [
        Stage("teachers", ("a", "b"), teachers, 7, split="teacher"),
        Stage("student", ("s", "t"), student, 5),
    ]


def test_without_teachers_students_learn_alone():
    assert [stage.name for stage in TwoStage().stages(Graph.of((), ("s",)))] == ["student"]


def test_whoever_learns_from_another_of_the_same_role_follows_it():
    nodes = [
        Node("first", "teacher"),
        Node("assistant", "teacher", ("first",)),
        Node("other", "teacher"),
        Node("student", "student", ("assistant", "other")),
        Node("reborn", "student", ("student",)),
    ]
    stages = TwoStage().stages(Graph({node.name: node for node in nodes}))
    assert [(stage.name, stage.learners) for stage in stages] == [
        ("teachers", ("first", "other")),
        ("teachers-2", ("assistant",)),
        ("student", ("student",)),
        ("student-2", ("reborn",)),
    ]


GRAPH = Graph.of(("skeleton", "fused"), ("student",))


@given(st.integers(1, 12), st.integers(1, 4))
def test_each_round_is_one_teacher_epoch_and_k_student_epochs(rounds, k):
    stages = list(Progressive(rounds=rounds, k=k).stages(GRAPH))
    assert [(stage.learners, stage.epochs) for stage in stages] == [(("skeleton", "fused"), 1), (("student",), k)] * rounds
    for learners in (GRAPH.teachers, GRAPH.students):
        own = [stage for stage in stages if stage.learners == learners]
        assert sum(stage.epochs for stage in own) == own[0].training.epochs
        assert all(before.training == after.training for before, after in pairwise(own))


def test_the_learning_rate_spans_all_rounds():
    cosine = Training(epochs=999, learning_rate=LearningRate("cosine"))
    last = list(Progressive(rounds=10, k=3, student=cosine).stages(GRAPH))[-1]
    assert last.training.epochs == 30
    assert last.training.learning_rate.factor(30, last.training.epochs) == 0


def test_a_resumed_run_sees_the_same_stages_and_students_may_be_alone():
    schedule = Progressive(rounds=3, k=2)
    assert list(schedule.stages(GRAPH)) == list(schedule.stages(GRAPH))
    assert [stage.learners for stage in schedule.stages(Graph.of((), ("student",)))] == [("student",)] * 3
