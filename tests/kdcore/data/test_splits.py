"""Splits held to their promise, and labels that are told wrong or not at all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import toys
from hypothesis import given
from hypothesis import strategies as st

from kdcore import Sample, SampleKey, Split
from kdcore.data.leakage import audit
from kdcore.data.pipeline import Pipeline
from kdcore.data.splits import checked_split, complete_samples, noisy_labels
from kdcore.errors import DataError


def sample(subject, trial="1", label=0, **fields):
    return Sample(SampleKey(subject, str(label), trial, **fields), label)


def split(train, test, validation=(), disjoint=("subject",), **more):
    parts = {"train": tuple(train), "validation": tuple(validation), "test": tuple(test), **more}
    return Split(parts, "a rule", disjoint)


def test_samples_that_lack_a_modality():
    full, half = (Sample(SampleKey(str(n), "0", "1"), 0, dict.fromkeys(has, "")) for n, has in enumerate(["ab", "a"]))
    assert complete_samples([full, half], ["a", "b"], "drop") == ([full], [f"{half.key}: no b"])
    with pytest.raises(DataError, match="lack a modality that the recipe uses"):
        complete_samples([full, half], ["a", "b"], "error")
    with pytest.raises(DataError, match=r"no sample has all of: a \(1 of 1 have it\), b \(0 of 1 have it\)"):
        complete_samples([half], ["b", "a"], "drop")


def test_a_clean_split_has_no_leaks():
    assert audit(split([sample("1"), sample("2")], [sample("3")], [sample("4")])) == []


@pytest.mark.parametrize(
    ("leaking", "named"),
    [
        (split([sample("1")], [sample("1")], disjoint=()), "subject 1, action 0, trial 1 is in both train and test"),
        (split([sample("1")], [sample("2")], [sample("1")], disjoint=()), "in both train and validation"),
        (split([sample("1")], [sample("1", "2")]), "subject 1 is in both train and test"),
        (split([sample("1")], [sample("2")], [sample("2", "3")]), "subject 2 is in both validation and test"),
        (split([sample("1")], [sample("2")], teacher=(sample("2", "3"),)), "subject 2 is in both teacher and test"),
        (split([sample("1", view="a")], [sample("2", view="a")], disjoint=("view",)), "view a is in both train and test"),
    ],
)
def test_planted_leaks_are_found(leaking, named):
    assert any(named in leak for leak in audit(leaking))
    with pytest.raises(DataError, match="the split leaks"):
        checked_split(leaking, 2, labelled=True)


def test_one_subject_on_both_sides_is_no_leak_where_the_protocol_does_not_promise_otherwise():
    assert audit(split([sample("1")], [sample("1", "2")], disjoint=())) == []


@pytest.mark.parametrize(
    ("unfit", "why"),
    [
        (split([], [sample("1")]), "no train samples"),
        (split([sample("1"), sample("1", label=1)], []), "no test samples"),
        (split([sample("1")], [sample("2")]), "at least two classes"),
    ],
)
def test_a_split_unfit_for_training_is_refused(unfit, why):
    with pytest.raises(DataError, match=why):
        checked_split(unfit, 2, labelled=True)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_exactly_the_share_of_labels_is_wrong_and_the_same_each_time(labels, fraction, seed):
    labels = np.array(labels)
    before = labels.copy()
    noisy = noisy_labels(labels, fraction, 5, seed)
    assert (noisy != labels).sum() == round(fraction * len(labels))
    assert noisy.min() >= 0
    assert noisy.max() < 5
    np.testing.assert_array_equal(labels, before)
    np.testing.assert_array_equal(noisy, noisy_labels(labels, fraction, 5, seed))


def test_wrong_labels_are_of_any_other_class_and_depend_on_the_seed():
    labels = np.zeros(4000, int)
    noisy = noisy_labels(labels, 1.0, 5, 0)
    counts = np.bincount(noisy, minlength=5)
    assert counts[0] == 0
    assert (np.abs(counts[1:] - 1000) < 5 * np.sqrt(4000 * 0.25 * 0.75)).all()
    assert not np.array_equal(noisy_labels(labels, 0.5, 5, 0), noisy_labels(labels, 0.5, 5, 1))


def test_noise_reaches_no_label_that_anything_is_measured_by(tmp_path):
    folder = tmp_path / "recordings"
    folder.mkdir()
    toys.write(folder)
    table = toys.table(toys.Files(folder), {"student": Pipeline([toys.branch()])}, tmp_path / "cache", label_noise=0.5)
    changed = table.taught != table.labels
    assert {part: int(changed[rows].sum()) for part, rows in table.parts.items()} == {"train": 4, "validation": 0, "test": 0}
    assert table.labels.tolist() == [0, 0, 1, 1] * 4
    assert torch.equal(table.batch(table.parts["train"], ["student"]).labels, table.taught[table.parts["train"]])
    assert table.batch(table.parts["train"], ["student"], labelled=False).labels is None
