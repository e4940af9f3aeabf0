"""Protocols that split by subject.

Subjects may be written as numbers or text. Subjects that a recipe does not list are in no split, which the rule states.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from annotated_types import Gt, Lt

from kdcore import DataError, Protocol, Sample, Splits
from kdcore_datasets.protocols.partition import (
    Value,
    both_sides,
    described,
    gather,
    held_out,
    matching,
    refuse_empty,
    refuse_overlap,
    values_of,
)

Share = Annotated[float, Gt(0), Lt(1)]
"""A share of all subjects."""


def _split_subjects(samples: Sequence[Sample], splits: dict[str, list[str]], validation: int | tuple[Value, ...]) -> Splits:
    """Return splits of these subjects, with a validation split from the training subjects."""
    existing = values_of(samples, "subject")
    if len(existing) == 1:
        raise DataError(
            f"all samples are of one subject, {existing[0]}, so none is left to test on: "
            "give the subject of each sample, or use a protocol that divides trials or sessions"
        )
    refuse_overlap("subject", splits)
    held = held_out(validation, splits["train"], existing, "subject")
    train = [each for each in splits["train"] if each not in held]
    others = {split: values for split, values in splits.items() if split != "train"}
    splits = {"train": train, "validation": held, **others}
    refuse_overlap("subject", splits)
    rule = described("By subject", splits, existing)
    split_of = {value: split for split, values in splits.items() for value in values}
    gathered = gather(samples, split_of, "subject", list(splits))
    refuse_empty(gathered, rule)
    return Splits(gathered, rule, disjoint=("subject",))


class CrossSubject(Protocol):
    """Train on some subjects and test on others.

    By default, the first, third, fifth … subject in natural order is used for training and the others for testing. For
    UTD-MHAD, this is the published split (1, 3, 5, 7 and 2, 4, 6, 8).

    Args:
        train_subjects: Training subjects; if empty, all that `test_subjects` does not list.
        test_subjects: Test subjects; if empty, all that `train_subjects` does not list.
        validation_subjects: Validation subjects, or how many of the last training subjects to hold out.
    """

    def __init__(
        self,
        *,
        train_subjects: tuple[Value, ...] = (),
        test_subjects: tuple[Value, ...] = (),
        validation_subjects: int | tuple[Value, ...] = 0,
    ):
        self.train_subjects = train_subjects
        self.test_subjects = test_subjects
        self.validation_subjects = validation_subjects

    def split(self, samples: Sequence[Sample]) -> Splits:
        """Split by subject."""
        existing = values_of(samples, "subject")
        train, test = both_sides(existing, self.train_subjects, self.test_subjects, "subject", existing[::2])
        return _split_subjects(samples, {"train": train, "test": test}, self.validation_subjects)


class LeaveOneSubjectOut(Protocol):
    """Test on one subject and train on all others.

    Args:
        test_subject: Test subject.
        validation_subjects: Validation subjects, or how many of the last training subjects to hold out.
    """

    def __init__(self, *, test_subject: Value, validation_subjects: int | tuple[Value, ...] = 0):
        self.test_subject = test_subject
        self.validation_subjects = validation_subjects

    def split(self, samples: Sequence[Sample]) -> Splits:
        """Split by subject."""
        existing = values_of(samples, "subject")
        train, test = both_sides(existing, (), (self.test_subject,), "subject", [])
        return _split_subjects(samples, {"train": train, "test": test}, self.validation_subjects)


class Explicit(Protocol):
    """Split by lists of subjects; others are not used.

    Args:
        train_subjects: Training subjects.
        test_subjects: Test subjects.
        validation_subjects: Validation subjects, or how many of the last training subjects to hold out.
    """

    def __init__(
        self,
        *,
        train_subjects: tuple[Value, ...],
        test_subjects: tuple[Value, ...],
        validation_subjects: int | tuple[Value, ...] = 0,
    ):
        self.train_subjects = train_subjects
        self.test_subjects = test_subjects
        self.validation_subjects = validation_subjects

    def split(self, samples: Sequence[Sample]) -> Splits:
        """Split by subject."""
        existing = values_of(samples, "subject")
        sides = {"train": self.train_subjects, "test": self.test_subjects}
        splits = {split: matching(values, existing, "subject") for split, values in sides.items()}
        return _split_subjects(samples, splits, self.validation_subjects)


def _chosen(wanted: tuple[Value, ...] | int | float, existing: Sequence[str], free: Sequence[str]) -> list[str]:
    """Return the listed subjects, or the given share of all subjects, taken from the first free ones."""
    if isinstance(wanted, int | float):
        return list(free[: max(1, round(wanted * len(existing)))])
    return matching(wanted, existing, "subject")


class DisjointSubjects(Protocol):
    """Train teachers and students on different subjects, and test on others.

    Returns the splits ``teacher``, ``train``, ``validation`` and ``test``.

    A share instead of a list selects that part of all subjects in natural order, at least one. Subjects of teachers come first,
    followed by those of students. A share works for any number of subjects.

    Args:
        teacher_subjects: Training subjects of teachers, or their share of all subjects, e.g. 0.4.
        student_subjects: Training subjects of students, or their share of all subjects.
        test_subjects: Test subjects; if empty, all others.
        validation_subjects: Validation subjects, or how many of the last student subjects to hold out.
    """

    def __init__(
        self,
        *,
        teacher_subjects: tuple[Value, ...] | Share,
        student_subjects: tuple[Value, ...] | Share,
        test_subjects: tuple[Value, ...] = (),
        validation_subjects: int | tuple[Value, ...] = 0,
    ):
        self.teacher_subjects = teacher_subjects
        self.student_subjects = student_subjects
        self.test_subjects = test_subjects
        self.validation_subjects = validation_subjects

    def split(self, samples: Sequence[Sample]) -> Splits:
        """Split by subject."""
        existing = values_of(samples, "subject")
        teacher = _chosen(self.teacher_subjects, existing, existing)
        student = _chosen(self.student_subjects, existing, [each for each in existing if each not in teacher])
        test = matching(self.test_subjects, existing, "subject")
        test = test or [each for each in existing if each not in teacher and each not in student]
        return _split_subjects(samples, {"train": student, "test": test, "teacher": teacher}, self.validation_subjects)
