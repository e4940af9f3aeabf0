"""Protocols for cross-validation over subjects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
from annotated_types import Ge

from kdcore import DataError, Protocol, Sample, Splits
from kdcore_datasets.protocols.partition import Value, values_of
from kdcore_datasets.protocols.subjects import CrossSubject


class SubjectFolds(Protocol):
    """Test on one of k groups of subjects, train on the others: one fold of a k-fold cross-validation.

    Subjects are divided in natural order, or in a random order that depends on `shuffle_seed` alone, into groups whose sizes
    differ by at most one. ``kdcore cross-validate`` runs all folds.

    Args:
        folds: Number of groups.
        fold: Number of the test group, from 1.
        shuffle_seed: Seed of the random order; natural order if not given.
        validation_subjects: Validation subjects, or how many of the last training subjects to hold out.

    Raises:
        ValueError: If there is no fold of that number.
    """

    def __init__(
        self,
        *,
        folds: Annotated[int, Ge(2)],
        fold: Annotated[int, Ge(1)],
        shuffle_seed: Annotated[int, Ge(0)] | None = None,
        validation_subjects: int | tuple[Value, ...] = 0,
    ):
        if not 1 <= fold <= folds:
            raise ValueError(f"fold must be between 1 and {folds} (the number of folds), not {fold}")
        self.folds = folds
        self.fold = fold
        self.shuffle_seed = shuffle_seed
        self.validation_subjects = validation_subjects

    def split(self, samples: Sequence[Sample]) -> Splits:
        """Divide by subject."""
        subjects = values_of(samples, "subject")
        if len(subjects) < self.folds:
            raise DataError(f"{self.folds} folds need at least {self.folds} subjects, these samples have {len(subjects)}")
        order, how = np.arange(len(subjects)), ""
        if self.shuffle_seed is not None:
            order = np.random.default_rng(self.shuffle_seed).permutation(len(subjects))
            how = f", shuffled (seed {self.shuffle_seed})"
        test = tuple(subjects[index] for index in sorted(np.array_split(order, self.folds)[self.fold - 1]))
        train = tuple(each for each in subjects if each not in test)
        rule = CrossSubject(train_subjects=train, test_subjects=test, validation_subjects=self.validation_subjects)
        found = rule.split(samples)
        return replace(found, rule=f"Fold {self.fold} of {self.folds}{how}. {found.rule}")
