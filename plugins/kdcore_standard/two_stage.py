"""Train teachers to the end, then students."""

from __future__ import annotations

from collections.abc import Iterator

from kdcore import Graph, Schedule, Stage, Training

DEFAULT = Training()


class TwoStage(Schedule):
    """The usual order: all teachers are trained to the end and frozen, then all students learn from them.

    Teachers that do not learn from one another share the stage ``teachers``; a teacher that learns from another one follows in
    ``teachers-2``, and so on. The same holds for students. Without teachers, only the students' stages remain.

    Args:
        teachers: How the teachers are trained.
        student: How the students are trained.
        teacher_part: Part of the split that the teachers learn from, e.g. ``teacher`` where a protocol sets one apart.
    """

    def __init__(self, *, teachers: Training = DEFAULT, student: Training = DEFAULT, teacher_part: str = "train"):
        self.teachers = teachers
        self.student = student
        self.teacher_part = teacher_part

    def stages(self, graph: Graph) -> Iterator[Stage]:
        """Stages ``teachers`` … if there are any, then stages ``student`` …."""
        for number, group in enumerate(graph.generations(graph.teachers), 1):
            yield Stage(numbered("teachers", number), group, self.teachers, self.teachers.epochs, self.teacher_part)
        for number, group in enumerate(graph.generations(graph.students), 1):
            yield Stage(numbered("student", number), group, self.student, self.student.epochs)


def numbered(name: str, number: int) -> str:
    """The first stage's plain name; ``name-2`` and so on for those that follow."""
    return name if number == 1 else f"{name}-{number}"
