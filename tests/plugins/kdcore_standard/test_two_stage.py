"""The order of the two-stage schedule."""

from kdcore import Graph, Node, Stage, Training
from kdcore_standard.two_stage import TwoStage


def test_teachers_learn_to_the_end_before_students():
    teachers, student = Training(epochs=7), Training(epochs=5)
    stages = TwoStage(teachers=teachers, student=student, teacher_part="teacher").stages(Graph.of(("a", "b"), ("s", "t")))
    assert list(stages) == [
        Stage("teachers", ("a", "b"), teachers, 7, part="teacher"),
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
