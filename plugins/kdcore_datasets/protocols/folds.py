"""Protocols for cross-validation over subjects."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
from annotated_types import Ge

from kdcore import DataError, Protocol, Sample, Splits
from kdcore_datasets.protocols.partition import Value, in_order, values_of
from kdcore_datasets.protocols.subjects import CrossSubject


class _Folds(Protocol):
    """One fold of a cross-validation: test on a group of subjects, train on all others."""

    how = ""
    """Description of the groups, for the recorded rule."""

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
        """Split by subject."""
        subjects = values_of(samples, "subject")
        if len(subjects) < self.folds:
            raise DataError(f"{self.folds} folds need at least {self.folds} subjects, but these samples have {len(subjects)}")
        test = tuple(subjects[index] for index in sorted(self.group(samples, subjects)))
        train = tuple(each for each in subjects if each not in test)
        rule = CrossSubject(train_subjects=train, test_subjects=test, validation_subjects=self.validation_subjects)
        found = rule.split(samples)
        how = self.how if self.shuffle_seed is None else f"{self.how}, shuffled (seed {self.shuffle_seed})"
        return replace(found, rule=f"Fold {self.fold} of {self.folds}{how}. {found.rule}")

    @abstractmethod
    def group(self, samples: Sequence[Sample], subjects: Sequence[str]) -> Sequence[int]:
        """Return the indices in `subjects` of the test subjects, at least one."""


class SubjectFolds(_Folds):
    """Test on one of k groups of subjects and train on the others: one fold of a k-fold cross-validation.

    Subjects are divided in natural order, or in a random order that only depends on `shuffle_seed`, into groups whose sizes
    differ by at most one. ``kdcore cross-validate`` runs all folds.

    Args:
        folds: Number of groups.
        fold: Number of the test group, from 1.
        shuffle_seed: Seed of the random order; natural order if not given.
        validation_subjects: Validation subjects, or how many of the last training subjects to hold out.

    Raises:
        ValueError: If `fold` is not between 1 and `folds`.
    """

    def group(self, samples: Sequence[Sample], subjects: Sequence[str]) -> Sequence[int]:
        """Return a group of consecutive subjects."""
        order = np.arange(len(subjects))
        if self.shuffle_seed is not None:
            order = np.random.default_rng(self.shuffle_seed).permutation(len(subjects))
        return np.array_split(order, self.folds)[self.fold - 1].tolist()


class StratifiedSubjectFolds(_Folds):
    """Test on one of k groups of subjects with similar class distributions: one fold of a stratified group k-fold.

    The groups are those of scikit-learn's
    `StratifiedGroupKFold <https://scikit-learn.org/stable/modules/generated/sklearn.model_selection.StratifiedGroupKFold.html>`__:
    subjects, starting with the least balanced, are assigned one by one to the group that keeps the class distributions most
    similar. Group sizes may differ. Samples without a label count as a class of their own.
    ``kdcore cross-validate --folds K --stratified`` runs all folds.

    Args:
        folds: Number of groups.
        fold: Number of the test group, from 1.
        shuffle_seed: Seed of the random order of equally balanced subjects; natural order if not given.
        validation_subjects: Validation subjects, or how many of the last training subjects to hold out.

    Raises:
        ValueError: If `fold` is not between 1 and `folds`.
    """

    how = " with similar shares of every class"
    targets = ("classes",)

    def group(self, samples: Sequence[Sample], subjects: Sequence[str]) -> Sequence[int]:
        """Return the group as formed by scikit-learn."""
        from sklearn.model_selection import StratifiedGroupKFold

        samples = in_order(samples)
        number = {subject: index for index, subject in enumerate(subjects)}
        groups = np.array([number[each.key.subject] for each in samples])
        labels = np.array([-1 if each.label is None else each.label for each in samples])
        rule = StratifiedGroupKFold(self.folds, shuffle=self.shuffle_seed is not None, random_state=self.shuffle_seed)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The least populated class")  # the run warns about rare classes itself
            try:
                divided = [test for _, test in rule.split(labels, labels, groups)]
            except ValueError as error:
                raise DataError(f"these samples cannot be divided into {self.folds} stratified folds: {error}") from error
        found = np.unique(groups[divided[self.fold - 1]]).tolist()
        if not found:
            raise DataError(
                f"fold {self.fold} of {self.folds} is empty: the {len(subjects)} subjects cannot be divided into so many "
                "groups with similar shares of every class; choose fewer folds"
            )
        return found
