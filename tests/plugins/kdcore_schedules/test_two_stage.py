"""The order of the two-stage schedule."""

from kdcore import Stage, Team, Training
from kdcore_schedules.schedules import TwoStage


def test_teachers_learn_to_the_end_before_students():
    teachers, student = Training(epochs=7), Training(epochs=5)
    stages = TwoStage(teachers=teachers, student=student, teacher_part="teacher").stages(Team(("a", "b"), ("s", "t")))
    assert list(stages) == [
        Stage("teachers", ("a", "b"), teachers, 7, part="teacher"),
        Stage("student", ("s", "t"), student, 5, teachers=("a", "b")),
    ]


def test_without_teachers_students_learn_alone():
    assert [stage.name for stage in TwoStage().stages(Team((), ("s",)))] == ["student"]
