"""Splits held to their promise, and labels that are told wrong or not at all."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcore import Protocol, Sample, SampleKey, Splits, TrainingError, Unusable
from kdcore.data.dropped import Dropped
from kdcore.data.labels import noisy_labels
from kdcore.data.leakage import audit, content_leaks, similar_names
from kdcore.data.pipeline import Pipeline
from kdcore.data.preparation import load_table
from kdcore.data.splits import check_splits, class_warnings, complete_samples, load_splits
from kdcore.errors import DataError, ListingError, SplitError


def sample(subject, trial="1", label=0, **fields):
    return Sample(SampleKey(subject, str(label), trial, **fields), label)


def split(train, test, validation=(), disjoint=("subject",), **more):
    splits = {"train": tuple(train), "validation": tuple(validation), "test": tuple(test), **more}
    return Splits(splits, "a rule", disjoint)


def test_samples_that_lack_a_modality():
    full, half = (Sample(SampleKey(str(n), "0", "1"), 0, dict.fromkeys(has, "")) for n, has in enumerate(["ab", "a"]))
    assert complete_samples([full, half], [frozenset("ab")], "drop") == (
        [full],
        {half.key: Dropped(str(half.key), "1", "no b", "no b")},
    )
    with pytest.raises(DataError, match="lack a modality that the recipe uses"):
        complete_samples([full, half], [frozenset("ab")], "error")
    with pytest.raises(DataError, match=r"no sample has all of: a \(1 of 1 have it\), b \(0 of 1 have it\)"):
        complete_samples([half], [frozenset("ab")], "drop")


def test_with_mask_a_sample_needs_the_modalities_of_one_student():
    has = ["a", "ab", "c", "b", ""]
    samples = [Sample(SampleKey(str(n), "0", "1"), 0, dict.fromkeys(each, "")) for n, each in enumerate(has)]
    kept, lacking = complete_samples(samples, [frozenset("ab"), frozenset("c")], "mask")
    assert kept == [samples[1], samples[2]]
    assert [each.reason for each in lacking.values()] == ["no b, no c", "no a, no c", "no a, no b, no c"]
    assert complete_samples(samples, [frozenset()], "mask")[0] == samples


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
    with pytest.raises(DataError, match="the splits leak"):
        check_splits(leaking, 2, labelled=True)


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
        check_splits(unfit, 2, labelled=True)


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
    train = table.training_rows("train")
    assert int((table.train_labels[train] != table.labels[train]).sum()) == 4
    assert all((table.train_labels[table.rows[split]] == -1).all() for split in ("validation", "test"))
    assert table.labels.tolist() == [0, 0, 1, 1] * 4
    assert torch.equal(table.batch(table.rows["train"], ["student"]).labels, table.train_labels[table.rows["train"]])
    assert table.batch(table.rows["train"], ["student"], labelled=False).labels is None


@pytest.mark.parametrize("split", ["test", "validation", "nobody"])
def test_nothing_learns_from_a_split_that_is_held_out(tmp_path, split):
    folder = tmp_path / "recordings"
    folder.mkdir()
    table = toys.table(toys.Files(toys.write(folder)), {"student": Pipeline([toys.branch()])}, tmp_path / "cache")
    with pytest.raises(TrainingError, match=split):
        table.training_rows(split)
    assert torch.equal(table.training_rows("train"), table.rows["train"])


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["1", "01", "2"], [("1", "01")]),
        (["jog", "Jog", "wave", "wave ", "walk"], [("jog", "Jog"), ("wave", "wave ")]),
        (["s_1", "S-01", "s1", "s 2", "s12"], [("s_1", "S-01", "s1")]),
        (["draw (clockwise)", "draw (counter clockwise)"], []),
        (["-45", "45", "0"], []),
        (["1 2", "12", "1.2", "1_2"], [("1 2", "1_2")]),
    ],
)
def test_names_that_are_nearly_the_same(names, groups):
    assert similar_names(names) == groups


def test_a_subject_under_two_names_on_both_sides_is_a_leak():
    assert audit(split([sample("01")], [sample("1")])) == ["subject '01' of train and '1' of test are nearly the same name"]
    assert audit(split([sample("01"), sample("1")], [sample("2")])) == []
    assert audit(split([sample("01")], [sample("1")], disjoint=())) == []


def test_classes_that_make_a_result_doubtful():
    train = [sample("1"), sample("2"), sample("1", label=1)]
    splits = split(train, [sample("3"), sample("3", label=2)])
    found = class_warnings(splits, ["walk", "Walk", "run"], splits)
    assert found == [
        "classes tested without training samples: 'run' (1 test samples)",
        "classes performed by a single subject: 'Walk' (1), 'run' (3)",
        "classes with nearly the same name: 'walk', 'Walk'",
    ]
    splits = split([sample("1"), sample("2")], [sample("3")])
    assert class_warnings(splits, ["walk", "run"], splits) == []
    before = split([sample("1"), sample("2"), sample("2", label=1)], [sample("3")])
    assert class_warnings(splits, ["walk", "run", "sit"], before) == ["classes of which every recording is dropped: 'run'"]


class Alternate(Protocol):
    """Every other subject trains, whatever else there is."""

    def split(self, samples):
        subjects = sorted({each.key.subject for each in samples})
        train = set(subjects[::2])
        splits = {"train": [], "validation": [], "test": []}
        for each in samples:
            splits["train" if each.key.subject in train else "test"].append(each)
        return Splits({split: tuple(found) for split, found in splits.items()}, "every other", ("subject",))


def test_the_split_is_made_before_anything_is_dropped(tmp_path):
    toys.write(tmp_path)
    for path in tmp_path.glob("ankle-s0-*"):
        path.unlink()  # without the first subject, the rule would make the second one the first
    divided = load_splits(toys.Files(tmp_path), Alternate(), toys.spec(), [frozenset({"ankle", "wrist"})])
    found = divided.splits
    assert {each.key.subject for each in found.samples["train"]} == {"s2"}
    assert {each.key.subject for each in found.samples["test"]} == {"s1", "s3"}
    assert len(divided.samples) == 12
    assert [(each.subject, each.reason, each.split) for each in divided.dropped] == 4 * [("s0", "no ankle", "train")]


class Leaving(toys.BySubject):
    """Uses nobody but s0, s1 and s3."""

    def split(self, samples):
        found = super().split(samples)
        return replace(found, samples={**found.samples, "validation": ()})


def test_what_the_split_leaves_out_is_counted(tmp_path):
    table = load_table(
        toys.Files(toys.write(tmp_path)),
        Leaving(),
        toys.spec(),
        {"student": Pipeline([toys.branch()])},
        tmp_path / "cache",
        1 << 30,
    )
    assert table.dropped.record()["reasons"]["in no split"]["subjects"] == {"s2": 4}
    assert table.dropped.lines()[0].startswith("4 dropped, in no split (subjects s2); the first: subject s2")


class Listing(toys.Files):
    """Finds two recordings that break while it lists, and one that its options leave out."""

    def samples(self):
        self.unusable = [Unusable(f"{n}.csv", "empty", "has no rows", "s9") for n in (1, 2)]
        self.unusable.append(Unusable("3.csv", "ignored label", fault=False))
        return super().samples()


def test_recordings_that_break_while_being_listed_are_bad_samples_too(tmp_path):
    dataset = Listing(toys.write(tmp_path))
    pipelines = {"student": Pipeline([toys.branch()])}
    with pytest.raises(ListingError, match=r"recordings that cannot be used: 2 \(data.on_bad_sample(.|\n)*1.csv: has no rows"):
        toys.table(dataset, pipelines, tmp_path / "cache")
    table = toys.table(dataset, pipelines, tmp_path / "cache", on_bad_sample="skip")
    assert table.dropped.counts == {"empty": 2, "ignored label": 1}
    assert table.dropped.record()["count"] == 3


@pytest.mark.parametrize("how", ["same bytes", "saved anew"])
def test_a_copy_in_the_test_split_is_a_leak(tmp_path, how):
    toys.write(tmp_path)
    values = np.load(tmp_path / "wrist-s0-a0-t0.npy")
    target = tmp_path / "wrist-s3-a1-t1.npy"
    np.save(target, values) if how == "same bytes" else np.save(target, np.asfortranarray(values))
    pipelines = {"student": Pipeline([toys.branch()])}
    with pytest.raises(SplitError, match=r"splits leak(.|\n)*wrist of subject s0.*train.* and subject s3.*test.* is the same"):
        toys.table(toys.Files(tmp_path), pipelines, tmp_path / "cache")
    np.save(target, np.zeros_like(values))  # constant signals are equal by nature
    np.save(tmp_path / "wrist-s0-a0-t0.npy", np.zeros_like(values))
    assert toys.table(toys.Files(tmp_path), pipelines, tmp_path / "cache").warnings == ()


@pytest.mark.parametrize(("copy", "original"), [("s1-a0-t0", "s0-a0-t0"), ("s3-a0-t1", "s3-a0-t0")])
def test_a_copy_within_a_split_is_said(tmp_path, copy, original):
    """Subjects s0 and s1 train, s3 tests."""
    toys.write(tmp_path)
    np.save(tmp_path / f"wrist-{copy}.npy", np.load(tmp_path / f"wrist-{original}.npy"))
    with pytest.warns(UserWarning, match="recordings that occur more than once: 1"):
        table = toys.table(toys.Files(tmp_path), {"student": Pipeline([toys.branch()])}, tmp_path / "cache")
    assert len(table.warnings) == 1


def test_samples_of_one_source_share_a_recording_and_do_not_leak(tmp_path):
    path = tmp_path / "a.npy"
    views = [Sample(SampleKey("1", "a", "1", view=view), 0, {"wrist": path}) for view in "ab"]
    other = Sample(SampleKey("2", "a", "1"), 0, {"wrist": tmp_path / "b.npy"})
    contents = {"wrist": {each.key: "same" for each in (*views, other)}}
    assert content_leaks(split(views[:1], views[1:]), contents) == ([], [])
    leaks, copies = content_leaks(split(views, [other]), contents)
    assert (len(leaks), copies) == (1, [])


SUBJECTS = st.sampled_from(["1", "01", "2", "3", "s1", "S1", "x"])
KEYS = st.builds(SampleKey, SUBJECTS, st.sampled_from("ab"), st.sampled_from("12"), view=st.sampled_from("pq"))
SAMPLES = st.lists(st.builds(Sample, KEYS, st.integers(0, 1)), max_size=30, unique_by=lambda each: each.key)


def folded(name):
    """An independent reading of nearly equal names among `SUBJECTS`."""
    return name.lower().lstrip("0")


@settings(max_examples=300, deadline=None)
@given(SAMPLES, SAMPLES, SAMPLES, st.sampled_from([(), ("subject",), ("subject", "view")]))
def test_no_split_passes_with_a_leak_whatever_the_data(train, validation, test, disjoint):
    made = split(train, test, validation, disjoint)
    keys = [{each.key for each in split} for split in (train, validation, test)]
    leaks = any(one & other for one, other in combinations(keys, 2))
    for field in disjoint:
        tested = {folded(getattr(key, field)) for key in keys[2]}
        leaks |= any(folded(getattr(key, field)) in tested for split in keys[:2] for key in split)
    classes = {each.label for each in train}
    fit = not leaks and train and test and len(classes) == 2
    assert bool(audit(made)) == leaks
    if fit:
        check_splits(made, 2, labelled=True)
    else:
        with pytest.raises(DataError):
            check_splits(made, 2, labelled=True)
