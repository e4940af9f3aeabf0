"""The table of an ablation, without any training."""

from __future__ import annotations

import pytest
from made_up import made_up

from kdcore import read_run
from kdcore_compare.ablation import ablation_tables
from kdcore_compare.contenders import contender
from kdcore_compare.tables import show


@pytest.fixture
def parts(tmp_path):
    whole = read_run(made_up(tmp_path / "whole", {0: 10, 1: 12, 2: 11}, {0: 9, 1: 13, 2: 8}, name="whole"))
    without = read_run(made_up(tmp_path / "without", {0: 14, 1: 15, 2: 17}, name="without"))
    found = [contender([whole], "", "whole"), contender([without], "", "without logits")]
    found += [contender([whole], "baseline", "student alone"), contender([whole], "teacher", "teacher teacher")]
    return ablation_tables([], found, "accuracy", "kdcore ablate x")


def test_the_interval_from_the_whole_is_the_last_to_go(parts, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    show(parts[:1])
    out = capsys.readouterr().out
    assert out.count("95 % interval") == 2  # a heading, and the note of what is left out
    assert "Left out for want of room: runs, 95 % interval (from student alone)." in out


def test_intervals_are_said_to_be_uncorrected(parts):
    notes = "\n".join(parts[0].notes)
    assert "not corrected for there being several: of many, some leave out zero by chance" in notes
    assert "agree" not in notes


def test_teachers_alone_cost_nothing_of_their_own(parts):
    costs = {row[0]: row for row in parts[2].rows}
    assert [costs[label][1] for label in costs] == ["11.0", "11.0", "11.0", ""]
    assert "Time and memory of whole are of teacher teacher too: trained together." in parts[2].notes
