"""Folds of subjects for cross-validation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdcore import DataError, Sample, SampleKey
from kdcore_datasets.protocols.folds import StratifiedSubjectFolds, SubjectFolds


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
    with pytest.raises(DataError, match="5 folds need at least 5 subjects, but these samples have 4"):
        SubjectFolds(folds=5, fold=1).split(recordings(4))
    with pytest.raises(ValueError, match="fold must be between 1 and 3"):
        SubjectFolds(folds=3, fold=4)


def uneven(seed: int, count: int = 8) -> list[Sample]:
    """Subjects with different numbers of samples of three classes."""
    generator = np.random.default_rng(seed)
    return [
        Sample(SampleKey(f"s{s}", str(a), str(t)), a)
        for s in range(1, count + 1)
        for a in range(3)
        for t in range(int(generator.integers(0, 9)) + (a == 0))
    ]


def greedy(samples: list[Sample], folds: int) -> list[set[str]]:
    """Stratified groups as scikit-learn's guide describes them, for classes of any size, one subject after the other."""
    names = sorted({each.key.subject for each in samples}, key=lambda name: int(name[1:]))
    counts = {name: np.bincount([s.label for s in samples if s.key.subject == name], minlength=3) for name in names}
    total = sum(counts.values())
    groups, filled = [set() for _ in range(folds)], [np.zeros(3) for _ in range(folds)]
    for name in sorted(names, key=lambda each: -np.std(counts[each])):

        def spread(fold, name=name):
            shares = np.array([(each + counts[name] * (n == fold)) / total for n, each in enumerate(filled)])
            return round(float(shares.std(axis=0).mean()), 12), filled[fold].sum()

        best = min(range(folds), key=spread)
        groups[best].add(name)
        filled[best] = filled[best] + counts[name]
    return groups


@pytest.mark.parametrize("seed", range(5))
def test_stratified_folds_are_the_greedy_ones(seed):
    samples = uneven(seed)
    for fold, expected in enumerate(greedy(samples, 3), 1):
        splits = StratifiedSubjectFolds(folds=3, fold=fold).split(samples)
        assert subjects(splits, "test") == expected
        assert splits.rule.startswith(f"Fold {fold} of 3 with similar shares of every class. By subject: train ")


@pytest.mark.parametrize("seed", range(5))
def test_samples_without_a_label_are_a_class_of_their_own(seed):
    samples = uneven(seed)
    blank = [Sample(each.key, None) if each.label == 2 else each for each in samples]
    for fold, expected in enumerate(greedy(samples, 3), 1):
        assert subjects(StratifiedSubjectFolds(folds=3, fold=fold).split(blank), "test") == expected


def test_stratified_folds_have_the_rare_class_everywhere():
    """Three of nine subjects, next to each other, have a rare class; folds in natural order have it once."""
    samples = [Sample(SampleKey(f"s{s}", str(a), "1"), a) for s in range(1, 10) for a in (0, 1, 2) if a < 2 or s in (1, 2, 3)]
    for rule, having in ((StratifiedSubjectFolds, 3), (SubjectFolds, 1)):
        tests = [rule(folds=3, fold=fold).split(samples).samples["test"] for fold in (1, 2, 3)]
        assert sum(any(each.label == 2 for each in test) for test in tests) == having


def test_stratified_folds_that_cannot_be_formed_are_refused():
    with pytest.raises(DataError, match="5 folds need at least 5 subjects"):
        StratifiedSubjectFolds(folds=5, fold=1).split(recordings(4))
    huge = [Sample(SampleKey("s0", "0", str(t)), 0) for t in range(9)]
    small = [Sample(SampleKey(f"s{s}", "1", "1"), 1) for s in (1, 2, 3)]
    tested = set()
    for fold in (1, 2, 3, 4):
        tested |= subjects(StratifiedSubjectFolds(folds=4, fold=fold).split([*huge, *small]), "test")
    assert tested == {"s0", "s1", "s2", "s3"}
