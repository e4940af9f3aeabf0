"""Test samples that a file lists."""

from __future__ import annotations

import pytest

from kdcore import DataError, Sample, SampleKey
from kdcore_datasets.protocols.lists import HeldOutList

SAMPLES = [Sample(SampleKey(f"s{s}", str(a), str(t)), a) for s in range(1, 6) for a in (0, 1) for t in (1, 2)]


@pytest.fixture
def write(tmp_path):
    def written(text, name="test.txt"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return written


def keys(splits, split):
    return {str(each.key) for each in splits.samples[split]}


def test_subjects_are_held_out(write):
    splits = HeldOutList(test=write("# held out\n\ns2\n  s4  \n"), validation_subjects=1).split(SAMPLES[::-1])
    who = {split: {each.key.subject for each in members} for split, members in splits.samples.items()}
    assert who == {"train": {"s1", "s3"}, "validation": {"s5"}, "test": {"s2", "s4"}}
    assert splits.rule == "By list: test subjects s2 and s4 (test.txt); of train, subjects s5 for validation"
    assert splits.disjoint == ("subject",)


def test_single_samples_are_held_out(write):
    test, validation = "subject s1, action 0, trial 2", "subject s1, action 1, trial 1"
    splits = HeldOutList(test=write(f"{test}\ns5\n"), validation=write(validation, "val.txt")).split(SAMPLES)
    assert keys(splits, "validation") == {validation}
    assert keys(splits, "test") == {test, *(str(each.key) for each in SAMPLES if each.key.subject == "s5")}
    assert len(splits.samples["train"]) == len(SAMPLES) - 6
    assert splits.disjoint == ()
    assert "test subjects s5 and 1 sample (test.txt)" in splits.rule


@pytest.mark.parametrize(
    ("test", "validation", "said"),
    [
        ("s2\ns6\n", None, "test.txt:\n  line 2: no subject or sample 's6'; known: s1, s2, s3, s4, s5"),
        ("subject s1, action 0, trial 9", None, "did you mean 'subject s1, action 0, trial "),
        ("# nothing\n", None, "lists neither subjects nor samples"),
        ("s1\ns2", "s2", "listed for validation and, in .*test.txt, for test: subject s2, action 0"),
        ("s1\ns2\ns3\ns4\ns5", None, "the train split is empty"),
    ],
)
def test_what_a_list_cannot_mean_is_refused(write, test, validation, said):
    rule = HeldOutList(test=write(test), validation=write(validation, "val.txt") if validation else None)
    with pytest.raises(DataError, match=said):
        rule.split(SAMPLES)


def test_numbers_match_padded_names_and_a_missing_file_is_named(write, tmp_path):
    padded = [Sample(SampleKey(f"0{s}", "0", "1"), 0) for s in range(1, 4)]
    assert keys(HeldOutList(test=write("2")).split(padded), "test") == {"subject 02, action 0, trial 1"}
    with pytest.raises(DataError, match=r"none\.txt: cannot read the list: No such file"):
        HeldOutList(test=tmp_path / "none.txt").split(padded)
    with pytest.raises(ValueError, match="validation or validation_subjects, not both"):
        HeldOutList(test=tmp_path, validation=tmp_path, validation_subjects=1)
