from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcore import DataError, Protocol, Sample, SampleKey
from kdcore.data.leakage import audit
from kdcore_datasets.protocols.conditions import CrossScene, CrossSession, CrossView
from kdcore_datasets.protocols.folds import StratifiedSubjectFolds, SubjectFolds
from kdcore_datasets.protocols.lists import HeldOutList
from kdcore_datasets.protocols.ntu import NtuCrossSubject, NtuCrossView
from kdcore_datasets.protocols.partition import match, natural
from kdcore_datasets.protocols.subjects import CrossSubject, DisjointSubjects, Explicit, LeaveOneSubjectOut
from kdcore_datasets.protocols.trials import SubjectSpecific


def recordings_of(subjects: Sequence[object], trials: int = 4, views: int = 1, scenes: int = 1) -> list[Sample]:
    return [
        Sample(SampleKey(str(s), str(a), str(t), view=str(v), scene=str(c), session=str(t)), a - 1)
        for s in subjects
        for a in (1, 2)
        for t in range(1, trials + 1)
        for v in range(1, views + 1)
        for c in range(1, scenes + 1)
    ]


def values(samples: Sequence[Sample], field: str) -> set[str]:
    return {getattr(sample.key, field) for sample in samples}


def test_natural_order_counts_numbers_within_names():
    assert sorted(["s10", "s2", "s1", "a3"], key=natural) == ["a3", "s1", "s2", "s10"]


def test_cross_subject_trains_on_every_other_subject():
    splits = CrossSubject().split(recordings_of(range(1, 11)))
    assert values(splits.samples["train"], "subject") == {"1", "3", "5", "7", "9"}
    assert values(splits.samples["test"], "subject") == {"2", "4", "6", "8", "10"}
    assert splits.samples["validation"] == ()
    assert splits.disjoint == ("subject",)
    assert splits.rule == "By subject: train 1, 3, 5, 7 and 9; test 2, 4, 6, 8 and 10"


def test_last_training_subjects_validate():
    splits = CrossSubject(validation_subjects=2).split(recordings_of(range(1, 13)))
    assert values(splits.samples["train"], "subject") == {"1", "3", "5", "7"}
    assert values(splits.samples["validation"], "subject") == {"9", "11"}
    assert "validation 9 and 11" in splits.rule


@pytest.mark.parametrize("written", [(1, 2), ("1", "2"), ("01", 2)])
def test_subjects_may_be_numbers_or_text(written):
    splits = CrossSubject(train_subjects=written).split(recordings_of(["01", "02", "03"]))
    assert values(splits.samples["train"], "subject") == {"01", "02"}
    assert values(splits.samples["test"], "subject") == {"03"}


def test_subjects_that_are_not_listed_are_left_out_and_named():
    splits = Explicit(train_subjects=(1,), test_subjects=(2,), validation_subjects=(3,)).split(recordings_of(range(1, 6)))
    assert [values(splits.samples[split], "subject") for split in ("train", "validation", "test")] == [{"1"}, {"3"}, {"2"}]
    assert splits.rule.endswith("left out 4 and 5")


def test_only_test_subjects_listed():
    splits = CrossSubject(test_subjects=(3,)).split(recordings_of(range(1, 5)))
    assert values(splits.samples["train"], "subject") == {"1", "2", "4"}


def test_leave_one_subject_out():
    splits = LeaveOneSubjectOut(test_subject=2, validation_subjects=1).split(recordings_of([1, 2, 3, 10]))
    assert values(splits.samples["test"], "subject") == {"2"}
    assert values(splits.samples["validation"], "subject") == {"10"}
    assert values(splits.samples["train"], "subject") == {"1", "3"}


def test_disjoint_subjects_give_teachers_their_own_split():
    rule = DisjointSubjects(teacher_subjects=(1, 2), student_subjects=(3, 4), validation_subjects=1)
    splits = rule.split(recordings_of(range(1, 7)))
    subjects = {split: values(samples, "subject") for split, samples in splits.samples.items()}
    assert subjects == {"train": {"3"}, "validation": {"4"}, "test": {"5", "6"}, "teacher": {"1", "2"}}


@pytest.mark.parametrize(
    ("people", "teacher", "train", "test"),
    [
        (20, range(1, 9), range(9, 13), range(13, 21)),
        (5, (1, 2), (3,), (4, 5)),
        (3, (1,), (2,), (3,)),
    ],
)
def test_disjoint_subjects_by_share_take_teachers_first(people, teacher, train, test):
    splits = DisjointSubjects(teacher_subjects=0.4, student_subjects=0.2).split(recordings_of(range(1, people + 1)))
    subjects = {split: values(samples, "subject") for split, samples in splits.samples.items() if samples}
    assert subjects == {name: set(map(str, who)) for name, who in (("teacher", teacher), ("train", train), ("test", test))}


def test_a_share_follows_after_teachers_that_are_listed():
    splits = DisjointSubjects(teacher_subjects=(2, 3), student_subjects=0.4).split(recordings_of(range(1, 6)))
    assert values(splits.samples["train"], "subject") == {"1", "4"}


def test_subject_specific_halves_trials():
    splits = SubjectSpecific().split(recordings_of([1, 2], trials=4))
    assert values(splits.samples["train"], "trial") == {"1", "2"}
    assert values(splits.samples["test"], "trial") == {"3", "4"}
    assert values(splits.samples["train"], "subject") == values(splits.samples["test"], "subject") == {"1", "2"}


def test_subject_specific_gives_the_odd_trial_to_training():
    samples = [sample for sample in recordings_of([1], trials=4) if (sample.key.action, sample.key.trial) != ("2", "4")]
    splits = SubjectSpecific().split(samples)
    assert len(splits.samples["train"]) == 4
    assert len(splits.samples["test"]) == 3


def test_subject_specific_with_named_trials():
    splits = SubjectSpecific(train_trials=(1, 3), validation_trials=(3,)).split(recordings_of([1, 2], trials=4))
    trials = {split: values(samples, "trial") for split, samples in splits.samples.items()}
    assert trials == {"train": {"1"}, "validation": {"3"}, "test": {"2", "4"}}
    assert splits.disjoint == ("trial",)


def test_subject_specific_holds_out_the_last_training_trial():
    splits = SubjectSpecific(validation_trials=1).split(recordings_of([1, 2], trials=6))
    assert values(splits.samples["train"], "trial") == {"1", "2"}
    assert values(splits.samples["validation"], "trial") == {"3"}


@pytest.mark.parametrize(("rule", "field"), [(CrossView(), "view"), (CrossScene(), "scene"), (CrossSession(), "session")])
def test_last_condition_tests(rule: Protocol, field: str):
    splits = rule.split(recordings_of([1, 2], trials=3, views=3, scenes=3))
    assert values(splits.samples["test"], field) == {"3"}
    assert values(splits.samples["train"], field) == {"1", "2"}
    assert splits.disjoint == (field,)


def test_condition_holds_out_training_subjects_only_from_the_training_side():
    splits = CrossView(train_views=(1,), test_views=(2,), validation_subjects=1).split(recordings_of([1, 2, 3], views=2))
    assert values(splits.samples["validation"], "subject") == {"3"}
    assert values(splits.samples["train"], "subject") == {"1", "2"}
    assert values(splits.samples["test"], "subject") == {"1", "2", "3"}
    assert values([*splits.samples["train"], *splits.samples["validation"]], "view") == {"1"}
    assert "subjects 3 for validation" in splits.rule


def test_ntu_protocols():
    samples = recordings_of([1, 3, 38, 40], views=3)
    by_subject = NtuCrossSubject().split(samples)
    assert values(by_subject.samples["train"], "subject") == {"1", "38"}
    by_view = NtuCrossView().split(samples)
    assert values(by_view.samples["train"], "view") == {"2", "3"}
    assert values(by_view.samples["test"], "view") == {"1"}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (CrossSubject(train_subjects=(1, 77)), "no samples with subject 77 \\(available: 1, 2 and 3\\)"),
        (CrossSubject(train_subjects=(1, 2), test_subjects=(2, 3)), "subject 2 is listed for both train and test"),
        (CrossSubject(train_subjects=(1, 2, 3)), "the test split is empty"),
        (CrossSubject(validation_subjects=2), "cannot hold out 2 of 2 training subjects"),
        (CrossSubject(validation_subjects=(2,)), "subject 2 is listed for both"),
        (LeaveOneSubjectOut(test_subject="x"), "no samples with subject x \\(available: "),
        (Explicit(train_subjects=(1,), test_subjects=()), "the test split is empty"),
        (CrossView(), "the train split is empty"),
        (CrossView(test_views=(9,)), "no samples with view 9 \\(available: 1"),
        (SubjectSpecific(train_trials=(8,)), "no samples with trial 8"),
        (SubjectSpecific(train_trials=(1, 2, 3, 4)), "the test split is empty"),
        (DisjointSubjects(teacher_subjects=(1,), student_subjects=(1, 2)), "subject 1 is listed for both"),
    ],
)
def test_what_does_not_fit_is_said(rule: Protocol, said: str):
    with pytest.raises(DataError, match="(?s)" + said):
        rule.split(recordings_of([1, 2, 3]))


def test_a_field_that_is_not_stated():
    samples = [Sample(SampleKey("1", "1", str(t)), 0) for t in range(3)]
    with pytest.raises(DataError, match="no sample states its view"):
        CrossView().split(samples)
    with pytest.raises(DataError, match="no samples to split"):
        CrossSubject().split([])
    with pytest.raises(DataError, match=r"all samples are of one subject, 1, .* give the subject of each sample"):
        CrossSubject().split(samples)


keys = st.builds(
    SampleKey,
    subject=st.sampled_from(["1", "2", "3", "04", "s5", "11"]),
    action=st.sampled_from(["1", "2"]),
    trial=st.sampled_from(["1", "2", "3", "4-1", "4-2"]),
    view=st.sampled_from(["1", "2", "3"]),
    scene=st.sampled_from(["a", "b"]),
    session=st.sampled_from(["1", "2"]),
)
rules = st.sampled_from(
    [
        CrossSubject(),
        CrossSubject(validation_subjects=1),
        LeaveOneSubjectOut(test_subject=1),
        SubjectSpecific(),
        SubjectSpecific(validation_trials=1),
        CrossView(),
        CrossView(validation_subjects=1),
        CrossScene(),
        CrossSession(),
        NtuCrossSubject(),
        NtuCrossView(),
    ]
)


@given(st.lists(keys, unique=True, min_size=1, max_size=40), rules, st.randoms(use_true_random=False))
def test_every_split_is_a_partition_that_leaks_nothing_and_ignores_order(
    chosen: list[SampleKey], rule: Protocol, shuffler: random.Random
):
    samples = [Sample(key, int(key.action) - 1) for key in chosen]
    try:
        splits = rule.split(samples)
    except DataError:
        return
    placed = [sample.key for split in splits.samples.values() for sample in split]
    assert len(placed) == len(set(placed))
    assert set(placed) == set(chosen)
    assert splits.samples["train"]
    assert splits.samples["test"]
    for field in splits.disjoint:
        training = values([*splits.samples["train"], *splits.samples["validation"]], field)
        assert not training & values(splits.samples["test"], field)
    again = list(samples)
    shuffler.shuffle(again)
    assert rule.split(again) == splits


@given(st.integers(2, 40), st.integers(0, 5))
def test_cross_subject_accepts_whenever_there_are_enough_subjects(count: int, held_out: int):
    samples = recordings_of(range(count), trials=1)
    trainers = (count + 1) // 2
    if held_out >= trainers:
        with pytest.raises(DataError, match="cannot hold out"):
            CrossSubject(validation_subjects=held_out).split(samples)
    else:
        splits = CrossSubject(validation_subjects=held_out).split(samples)
        assert len(values(splits.samples["train"], "subject")) == trainers - held_out
        assert len(values(splits.samples["validation"], "subject")) == held_out


KEYS = st.builds(
    SampleKey,
    st.sampled_from(["1", "01", "2", "3", "10", "x", "X"]),
    st.sampled_from(["1", "2"]),
    st.sampled_from(["1", "2", "3"]),
    view=st.sampled_from(["", "1", "2", "3"]),
    scene=st.sampled_from(["", "1", "2"]),
    session=st.sampled_from(["", "a", "b"]),
)
SPLITTING = {
    "subject": [
        CrossSubject(),
        CrossSubject(validation_subjects=1),
        LeaveOneSubjectOut(test_subject="2"),
        NtuCrossSubject(),
        Explicit(train_subjects=("1", "2"), test_subjects=("3", "x"), validation_subjects=1),
        DisjointSubjects(teacher_subjects=0.3, student_subjects=0.3),
        DisjointSubjects(teacher_subjects=("1",), student_subjects=("2", "3"), validation_subjects=1),
        SubjectFolds(folds=3, fold=2),
        SubjectFolds(folds=2, fold=1, shuffle_seed=4, validation_subjects=1),
        StratifiedSubjectFolds(folds=3, fold=2),
        StratifiedSubjectFolds(folds=2, fold=1, shuffle_seed=4, validation_subjects=1),
    ],
    "trial": [SubjectSpecific(), SubjectSpecific(validation_trials=1), SubjectSpecific(train_trials=(1,))],
    "view": [CrossView(), CrossView(validation_subjects=1), NtuCrossView()],
    "scene": [CrossScene()],
    "session": [CrossSession()],
}
RULES = [(field, rule) for field, rules in SPLITTING.items() for rule in rules]


@settings(max_examples=150, deadline=None)
@given(st.lists(KEYS, max_size=40, unique=True), st.integers(0, 2**16))
@pytest.mark.parametrize(("field", "protocol"), RULES, ids=lambda each: getattr(type(each), "__name__", each))
def test_whatever_the_data_a_split_is_refused_or_clean(field, protocol, keys, seed):
    samples = [Sample(key, int(key.action) - 1) for key in keys]
    try:
        found = protocol.split(samples)
    except DataError:
        return
    splits = {split: {sample.key for sample in members} for split, members in found.samples.items()}
    assert sum(map(len, splits.values())) == len(set().union(*splits.values()))  # no sample in two splits
    assert set().union(*splits.values()) <= set(keys)
    if field in found.disjoint:
        tested = {getattr(key, field) for key in splits["test"]}
        assert not any(getattr(key, field) in tested for split in splits if split != "test" for key in splits[split])
    if field != "trial":
        assert field in found.disjoint
    mixed = list(samples)
    random.Random(seed).shuffle(mixed)
    assert protocol.split(mixed).samples == found.samples  # whatever the order
    if len(set().union(*splits.values())) < len(keys):
        assert "left out" in found.rule


LINES = st.sampled_from(["1", "01", "2", "x", "X", "10", "nobody", "", "# note"]) | KEYS.map(str)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(KEYS, min_size=1, max_size=30, unique=True),
    st.lists(LINES, max_size=3),
    st.none() | st.lists(LINES, max_size=2),
    st.sampled_from([0, 0, 1]),
    st.randoms(use_true_random=False),
)
def test_whatever_a_list_holds_out_a_split_is_refused_or_clean(keys, test, validation, held, shuffler):
    """Also if samples of the data themselves are listed, every third one."""
    samples = [Sample(key, int(key.action) - 1) for key in keys]
    with TemporaryDirectory() as folder:
        files = {"test": [*test, *map(str, keys[::3])] if len(test) == 1 else test, "validation": validation}
        paths = {name: Path(folder) / name for name, lines in files.items() if lines is not None}
        for name, path in paths.items():
            path.write_text("\n".join(files[name] or []))
        try:
            protocol = HeldOutList(**paths, validation_subjects=held)
            found = protocol.split(samples)
        except (DataError, ValueError):
            return
        mixed = list(samples)
        shuffler.shuffle(mixed)
        assert protocol.split(mixed).samples == found.samples
    splits = {split: [sample.key for sample in members] for split, members in found.samples.items()}
    assert sorted(key for members in splits.values() for key in members) == sorted(keys)  # each once
    subjects = {key.subject for key in keys}
    for name in paths:
        wanted = [line for line in files[name] if line and not line.startswith("#")]
        listed = {key for line in wanted for key in keys if line == str(key) or match(line, sorted(subjects)) == key.subject}
        assert set(splits[name]) == listed
    whole = all(match(line, sorted(subjects)) for name in paths for line in files[name] if line and not line.startswith("#"))
    assert found.disjoint == (("subject",) if whole else ())
    if whole:
        tested = {key.subject for key in splits["test"]}
        assert not tested & {key.subject for key in splits["train"] + splits["validation"]}
    assert audit(found) == [] or "nearly the same name" in audit(found)[0]


@pytest.mark.parametrize("field", ["subject", "session"])
def test_values_called_train_and_test_are_what_they_are_called(field: str):
    names = ("test", "train", "extra")
    keys = [SampleKey("s", "a", str(n)) for n in range(12)]
    samples = [Sample(replace(key, **{field: names[n % 3]}), n // 3 % 2) for n, key in enumerate(keys)]
    rule = CrossSubject() if field == "subject" else CrossSession()
    splits = rule.split(samples).samples
    assert values(splits["test"], field) == {"test"}
    assert values(splits["train"], field) == {"train", "extra"}
