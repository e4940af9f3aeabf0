"""Teachers to the end, then students."""

from __future__ import annotations

from collections.abc import Iterator

from kdcore import Schedule, Stage, Team, Training

DEFAULT = Training()


class TwoStage(Schedule):
    """The usual order: all teachers learn to the end, are frozen, then teach all students.

    A recipe without teachers has the second stage alone.

    Args:
        teachers: How the teachers are trained, together in one stage.
        student: How the students are trained, together in one stage.
        teacher_part: Part of the split that the teachers learn from, e.g. ``teacher`` where a protocol sets one apart.
    """

    def __init__(self, *, teachers: Training = DEFAULT, student: Training = DEFAULT, teacher_part: str = "train"):
        self.teachers = teachers
        self.student = student
        self.teacher_part = teacher_part

    def stages(self, team: Team) -> Iterator[Stage]:
        """Stage ``teachers``, if there are any, then stage ``student``."""
        if team.teachers:
            yield Stage("teachers", team.teachers, self.teachers, self.teachers.epochs, part=self.teacher_part)
        yield Stage("student", team.students, self.student, self.student.epochs, teachers=team.teachers)
