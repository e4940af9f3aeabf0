"""Schedules: in which order teachers and students are trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

from annotated_types import Ge

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


class Progressive(Schedule):
    """PSKD(k): each round, the teachers learn for one epoch, then the students for k against teachers as they are now.

    J. Ni, A. H. H. Ngu, Y. Yan, "Progressive Cross-modal Knowledge Distillation for Human Action Recognition", ACM MM
    2022, section 3.2. Optimizers and learning rates go on from round to round; both trainings' ``epochs`` follow from
    `rounds` and `k`, whatever they say. Works with any losses and any number of teachers; for finished teachers use
    ``two-stage``.

    Args:
        rounds: Number of rounds, and epochs of the teachers.
        k: Epochs of the students in each round.
        teachers: How the teachers are trained.
        student: How the students are trained.
        teacher_part: Part of the split that the teachers learn from.
    """

    def __init__(
        self,
        *,
        rounds: Annotated[int, Ge(1)] = 30,
        k: Annotated[int, Ge(1)] = 1,
        teachers: Training = DEFAULT,
        student: Training = DEFAULT,
        teacher_part: str = "train",
    ):
        self.rounds = rounds
        self.k = k
        self.teachers = replace(teachers, epochs=rounds)
        self.student = replace(student, epochs=rounds * k)
        self.teacher_part = teacher_part

    def stages(self, team: Team) -> Iterator[Stage]:
        """Stages ``teachers`` (left out where there are none) and ``student`` by turns, `rounds` times."""
        for _ in range(self.rounds):
            if team.teachers:
                yield Stage("teachers", team.teachers, self.teachers, epochs=1, part=self.teacher_part)
            yield Stage("student", team.students, self.student, epochs=self.k, teachers=team.teachers)
