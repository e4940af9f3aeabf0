"""Schedules: who is trained when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

from annotated_types import Ge

from kdcore import Graph, Schedule, Stage, Training

DEFAULT = Training()


class TwoStage(Schedule):
    """The usual order: all teachers are trained to the end and frozen, then all students learn from them.

    Teachers that do not learn from one another share the stage ``teachers``; a teacher that learns from another one follows in
    ``teachers-2``, and so on. The same holds for students. Without teachers, only the students' stages remain.

    Args:
        teachers: How the teachers are trained.
        student: How the students are trained.
        teacher_split: Split that the teachers learn from, e.g. ``teacher`` where a protocol sets one apart.
    """

    def __init__(self, *, teachers: Training = DEFAULT, student: Training = DEFAULT, teacher_split: str = "train"):
        self.teachers = teachers
        self.student = student
        self.teacher_split = teacher_split

    def stages(self, graph: Graph) -> Iterator[Stage]:
        """Stages ``teachers`` … if there are any, then stages ``student`` …."""
        for number, group in enumerate(graph.generations(graph.teachers), 1):
            yield Stage(_numbered("teachers", number), group, self.teachers, self.teachers.epochs, self.teacher_split)
        for number, group in enumerate(graph.generations(graph.students), 1):
            yield Stage(_numbered("student", number), group, self.student, self.student.epochs)


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


class Progressive(Schedule):
    """PSKD(k): in each round, train the teachers for one epoch, then the students for k epochs with the current teachers.

    J. Ni, A. H. H. Ngu, Y. Yan, "Progressive Cross-modal Knowledge Distillation for Human Action Recognition", ACM MM
    2022, section 3.2, https://doi.org/10.1145/3503161.3548238. Optimizers and learning rates continue from round to round;
    both trainings' ``epochs`` follow from `rounds` and `k`, whatever they say. It works with any losses and any number of
    teachers; for finished teachers use ``two-stage``.

    Args:
        rounds: Number of rounds, and epochs of the teachers.
        k: Epochs of the students in each round.
        teachers: How the teachers are trained.
        student: How the students are trained.
        teacher_split: Split that the teachers learn from.
    """

    def __init__(
        self,
        *,
        rounds: Annotated[int, Ge(1)] = 30,
        k: Annotated[int, Ge(1)] = 1,
        teachers: Training = DEFAULT,
        student: Training = DEFAULT,
        teacher_split: str = "train",
    ):
        self.rounds = rounds
        self.k = k
        self.teachers = replace(teachers, epochs=rounds)
        self.student = replace(student, epochs=rounds * k)
        self.teacher_split = teacher_split

    def stages(self, graph: Graph) -> Iterator[Stage]:
        """Stages ``teachers`` (left out where there are none) and ``student`` in turns, `rounds` times."""
        for _ in range(self.rounds):
            if graph.teachers:
                yield Stage("teachers", graph.teachers, self.teachers, epochs=1, split=self.teacher_split)
            yield Stage("student", graph.students, self.student, epochs=self.k)
