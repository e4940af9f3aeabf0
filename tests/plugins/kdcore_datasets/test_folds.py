"""Folds of subjects for cross-validation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdcore import DataError, Sample, SampleKey
from kdcore_datasets.protocols.folds import SubjectFolds


def recordings(count: int) -> list[Sample]:
    return [Sample(SampleKey(f"s{s}", str(a), "1"), a) for s in range(1, count + 1) for a in (0, 1)]


def subjects(splits, split: str) -> set[str]:
    return {sample.key.subject for sample in splits.samples[split]}


@given(st.integers(2, 9), st.integers(0, 8), st.none() | st.integers(0, 99))
def test_every_subject_tests_once_and_never_trains_then(folds, more, seed):
    samples = recordings(folds + more)
    tested = []
    for fold in range(1, folds + 1):
        splits = SubjectFolds(folds=folds, fold=fold, shuffle_seed=seed).split(samples)
        assert subjects(splits, "train") | subjects(splits, "test") == {each.key.subject for each in samples}
        assert not subjects(splits, "train") & subjects(splits, "test")
        tested += sorted(subjects(splits, "test"))
    assert sorted(tested) == sorted({each.key.subject for each in samples})


@pytest.mark.parametrize(
    ("count", "groups"),
    [(4, ["1", "2", "3", "4"]), (7, ["1 2", "3 4", "5 6", "7"]), (10, ["1 2 3", "4 5 6", "7 8", "9 10"])],
)
def test_folds_in_natural_order_are_those_of_scikit_learn(count, groups):
    """The folds of sklearn.model_selection.KFold(4) for subjects 1, 2, 3 …"""
    for fold, expected in enumerate(groups, 1):
        splits = SubjectFolds(folds=4, fold=fold).split(recordings(count))
        assert subjects(splits, "test") == {f"s{name}" for name in expected.split()}


def test_a_seed_shuffles_always_alike_and_the_rule_says_so():
    first, again = (SubjectFolds(folds=3, fold=2, shuffle_seed=1).split(recordings(9)) for _ in range(2))
    assert first == again
    assert first.rule.startswith("Fold 2 of 3, shuffled (seed 1). By subject: train ")
    tests = {frozenset(subjects(SubjectFolds(folds=3, fold=1, shuffle_seed=s).split(recordings(9)), "test")) for s in range(9)}
    assert len(tests) > 1


def test_the_last_training_subjects_validate():
    splits = SubjectFolds(folds=3, fold=1, validation_subjects=2).split(recordings(6))
    assert (subjects(splits, "test"), subjects(splits, "validation")) == ({"s1", "s2"}, {"s5", "s6"})


def test_what_does_not_fit_is_refused():
    with pytest.raises(DataError, match="5 folds need at least 5 subjects, these samples have 4"):
        SubjectFolds(folds=5, fold=1).split(recordings(4))
    with pytest.raises(ValueError, match="fold must be between 1 and 3"):
        SubjectFolds(folds=3, fold=4)
