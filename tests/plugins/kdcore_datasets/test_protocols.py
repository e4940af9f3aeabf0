from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcore import DataError, Protocol, Sample, SampleKey
from kdcore_datasets.protocols.conditions import CrossScene, CrossSession, CrossView
from kdcore_datasets.protocols.ntu import NtuCrossSubject, NtuCrossView
from kdcore_datasets.protocols.partition import natural
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
    split = CrossSubject().split(recordings_of(range(1, 11)))
    assert values(split.parts["train"], "subject") == {"1", "3", "5", "7", "9"}
    assert values(split.parts["test"], "subject") == {"2", "4", "6", "8", "10"}
    assert split.parts["validation"] == ()
    assert split.disjoint == ("subject",)
    assert split.rule == "By subject: train 1, 3, 5, 7 and 9; test 2, 4, 6, 8 and 10"


def test_last_training_subjects_validate():
    split = CrossSubject(validation_subjects=2).split(recordings_of(range(1, 13)))
    assert values(split.parts["train"], "subject") == {"1", "3", "5", "7"}
    assert values(split.parts["validation"], "subject") == {"9", "11"}
    assert "validation 9 and 11" in split.rule


@pytest.mark.parametrize("written", [(1, 2), ("1", "2"), ("01", 2)])
def test_subjects_may_be_numbers_or_text(written):
    split = CrossSubject(train_subjects=written).split(recordings_of(["01", "02", "03"]))
    assert values(split.parts["train"], "subject") == {"01", "02"}
    assert values(split.parts["test"], "subject") == {"03"}


def test_subjects_that_are_not_listed_are_left_out_and_named():
    split = Explicit(train_subjects=(1,), test_subjects=(2,), validation_subjects=(3,)).split(recordings_of(range(1, 6)))
    assert [values(split.parts[part], "subject") for part in ("train", "validation", "test")] == [{"1"}, {"3"}, {"2"}]
    assert split.rule.endswith("left out 4 and 5")


def test_only_test_subjects_listed():
    split = CrossSubject(test_subjects=(3,)).split(recordings_of(range(1, 5)))
    assert values(split.parts["train"], "subject") == {"1", "2", "4"}


def test_leave_one_subject_out():
    split = LeaveOneSubjectOut(test_subject=2, validation_subjects=1).split(recordings_of([1, 2, 3, 10]))
    assert values(split.parts["test"], "subject") == {"2"}
    assert values(split.parts["validation"], "subject") == {"10"}
    assert values(split.parts["train"], "subject") == {"1", "3"}


def test_disjoint_subjects_give_teachers_their_own_part():
    rule = DisjointSubjects(teacher_subjects=(1, 2), student_subjects=(3, 4), validation_subjects=1)
    split = rule.split(recordings_of(range(1, 7)))
    subjects = {part: values(samples, "subject") for part, samples in split.parts.items()}
    assert subjects == {"train": {"3"}, "validation": {"4"}, "test": {"5", "6"}, "teacher": {"1", "2"}}


def test_subject_specific_halves_trials():
    split = SubjectSpecific().split(recordings_of([1, 2], trials=4))
    assert values(split.parts["train"], "trial") == {"1", "2"}
    assert values(split.parts["test"], "trial") == {"3", "4"}
    assert values(split.parts["train"], "subject") == values(split.parts["test"], "subject") == {"1", "2"}


def test_subject_specific_gives_the_odd_trial_to_training():
    samples = [sample for sample in recordings_of([1], trials=4) if (sample.key.action, sample.key.trial) != ("2", "4")]
    split = SubjectSpecific().split(samples)
    assert len(split.parts["train"]) == 4
    assert len(split.parts["test"]) == 3


def test_subject_specific_with_named_trials():
    split = SubjectSpecific(train_trials=(1, 3), validation_trials=(3,)).split(recordings_of([1, 2], trials=4))
    trials = {part: values(samples, "trial") for part, samples in split.parts.items()}
    assert trials == {"train": {"1"}, "validation": {"3"}, "test": {"2", "4"}}
    assert split.disjoint == ("trial",)


def test_subject_specific_holds_out_the_last_training_trial():
    split = SubjectSpecific(validation_trials=1).split(recordings_of([1, 2], trials=6))
    assert values(split.parts["train"], "trial") == {"1", "2"}
    assert values(split.parts["validation"], "trial") == {"3"}


@pytest.mark.parametrize(("rule", "field"), [(CrossView(), "view"), (CrossScene(), "scene"), (CrossSession(), "session")])
def test_last_condition_tests(rule: Protocol, field: str):
    split = rule.split(recordings_of([1, 2], trials=3, views=3, scenes=3))
    assert values(split.parts["test"], field) == {"3"}
    assert values(split.parts["train"], field) == {"1", "2"}
    assert split.disjoint == (field,)


def test_condition_holds_out_training_subjects_only_from_the_training_side():
    split = CrossView(train_views=(1,), test_views=(2,), validation_subjects=1).split(recordings_of([1, 2, 3], views=2))
    assert values(split.parts["validation"], "subject") == {"3"}
    assert values(split.parts["train"], "subject") == {"1", "2"}
    assert values(split.parts["test"], "subject") == {"1", "2", "3"}
    assert values([*split.parts["train"], *split.parts["validation"]], "view") == {"1"}
    assert "subjects 3 for validation" in split.rule


def test_ntu_protocols():
    samples = recordings_of([1, 3, 38, 40], views=3)
    by_subject = NtuCrossSubject().split(samples)
    assert values(by_subject.parts["train"], "subject") == {"1", "38"}
    by_view = NtuCrossView().split(samples)
    assert values(by_view.parts["train"], "view") == {"2", "3"}
    assert values(by_view.parts["test"], "view") == {"1"}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (CrossSubject(train_subjects=(1, 77)), "no samples of subject 77; there are 1, 2 and 3"),
        (CrossSubject(train_subjects=(1, 2), test_subjects=(2, 3)), "subject 2 is listed for both train and test"),
        (CrossSubject(train_subjects=(1, 2, 3)), "the test part is empty"),
        (CrossSubject(validation_subjects=2), "cannot hold out 2 of 2 training subjects"),
        (CrossSubject(validation_subjects=(2,)), "subject 2 is listed for both"),
        (LeaveOneSubjectOut(test_subject="x"), "no samples of subject x; there are"),
        (Explicit(train_subjects=(1,), test_subjects=()), "the test part is empty"),
        (CrossView(), "the train part is empty"),
        (CrossView(test_views=(9,)), "no samples of view 9; there are 1"),
        (SubjectSpecific(train_trials=(8,)), "no samples of trial 8"),
        (SubjectSpecific(train_trials=(1, 2, 3, 4)), "the test part is empty"),
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
        split = rule.split(samples)
    except DataError:
        return
    placed = [sample.key for part in split.parts.values() for sample in part]
    assert len(placed) == len(set(placed))
    assert set(placed) == set(chosen)
    assert split.parts["train"]
    assert split.parts["test"]
    for field in split.disjoint:
        training = values([*split.parts["train"], *split.parts["validation"]], field)
        assert not training & values(split.parts["test"], field)
    again = list(samples)
    shuffler.shuffle(again)
    assert rule.split(again) == split


@given(st.integers(2, 40), st.integers(0, 5))
def test_cross_subject_accepts_whenever_there_are_enough_subjects(count: int, held_out: int):
    samples = recordings_of(range(count), trials=1)
    trainers = (count + 1) // 2
    if held_out >= trainers:
        with pytest.raises(DataError, match="cannot hold out"):
            CrossSubject(validation_subjects=held_out).split(samples)
    else:
        split = CrossSubject(validation_subjects=held_out).split(samples)
        assert len(values(split.parts["train"], "subject")) == trainers - held_out
        assert len(values(split.parts["validation"], "subject")) == held_out


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
    "subject": [CrossSubject(), CrossSubject(validation_subjects=1), LeaveOneSubjectOut(test_subject="2"), NtuCrossSubject()],
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
    parts = {part: {sample.key for sample in members} for part, members in found.parts.items()}
    assert sum(map(len, parts.values())) == len(set().union(*parts.values()))  # no sample in two parts
    assert set().union(*parts.values()) <= set(keys)
    if field in found.disjoint:
        tested = {getattr(key, field) for key in parts["test"]}
        assert not any(getattr(key, field) in tested for part in parts if part != "test" for key in parts[part])
    if field != "trial":
        assert field in found.disjoint
    mixed = list(samples)
    random.Random(seed).shuffle(mixed)
    assert protocol.split(mixed).parts == found.parts  # whatever the order
    if len(set().union(*parts.values())) < len(keys):
        assert "left out" in found.rule
