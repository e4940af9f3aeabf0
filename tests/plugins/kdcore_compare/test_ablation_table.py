"""The table of an ablation, without any training."""

from __future__ import annotations

import pytest
from made_up import made_up

from kdcore import read_run
from kdcore_compare.ablation import ablation_tables
from kdcore_compare.selection import make_entry
from kdcore_compare.tables import print_tables


@pytest.fixture
def parts(tmp_path):
    whole = read_run(made_up(tmp_path / "whole", {0: 10, 1: 12, 2: 11}, {0: 9, 1: 13, 2: 8}, name="full recipe"))
    without = read_run(made_up(tmp_path / "without", {0: 14, 1: 15, 2: 17}, name="without"))
    found = [make_entry([whole], "", "full recipe"), make_entry([without], "", "without logits")]
    found += [make_entry([whole], "baseline", "baseline"), make_entry([whole], "teacher", "teacher teacher")]
    return ablation_tables([], found, "accuracy", "kdcore ablate x")


def test_the_interval_from_the_whole_is_the_last_to_go(parts, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    print_tables(parts[:1])
    out = capsys.readouterr().out
    assert out.count("95 % interval") == 2  # a heading, and the note of what is left out
    assert "Columns left out (narrow terminal): runs, 95 % interval (from baseline)." in out


def test_intervals_are_said_to_be_uncorrected(parts):
    notes = "\n".join(parts[0].notes)
    assert "not corrected for multiple comparisons" in notes
    assert "agree" not in notes


def test_teachers_alone_cost_nothing_of_their_own(parts):
    costs = {row[0]: row for row in parts[2].rows}
    assert [costs[label][1] for label in costs] == ["11.0", "11.0", "11.0", ""]
    assert "Time and memory of full recipe include teacher teacher, trained in the same run." in parts[2].notes
