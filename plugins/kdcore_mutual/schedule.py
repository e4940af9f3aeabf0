"""Train teachers, then all students side by side."""

from __future__ import annotations

from collections.abc import Iterator

from kdcore import Graph, Schedule, Stage, Training

DEFAULT = Training()


class MutualLearning(Schedule):
    """All students learn in one stage, step by step together, from frozen teachers and from each other.

    With one student this is plain distillation; without teachers, the students have only each other.

    Args:
        teachers: How the teachers are trained.
        student: How each student is trained.
        teacher_split: Split that the teachers learn from; ``teacher`` where the protocol sets one apart,
            as the paper does with its two groups of subjects.
    """

    def __init__(self, *, teachers: Training = DEFAULT, student: Training = DEFAULT, teacher_split: str = "train"):
        self.teachers = teachers
        self.student = student
        self.teacher_split = teacher_split

    def stages(self, graph: Graph) -> Iterator[Stage]:
        """Stage ``teachers``, if there are any, then stage ``students``."""
        for number, group in enumerate(graph.generations(graph.teachers), 1):
            name = "teachers" if number == 1 else f"teachers-{number}"
            yield Stage(name, group, self.teachers, self.teachers.epochs, split=self.teacher_split)
        yield Stage("students", graph.students, self.student, self.student.epochs)
