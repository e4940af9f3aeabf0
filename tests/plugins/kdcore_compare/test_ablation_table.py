"""The table of an ablation, without any training."""

from __future__ import annotations

import numpy as np
import pytest
from made_up import made_up
from scipy import stats

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
    out = " ".join(capsys.readouterr().out.split())
    assert out.count("95 % interval") == 2  # a heading, and the note of what is left out
    assert "Columns left out (narrow terminal): runs, 95 % interval (from baseline), p (Holm) (from baseline)." in out


def test_several_comparisons_are_corrected(parts):
    notes = "\n".join(parts[0].notes)
    assert "p (Holm): corrected for the number of comparisons in its column. Intervals are not corrected." in notes
    ones = {row[0]: row[5] for row in parts[0].rows}
    full, others = np.array([10, 12, 11]), {"without logits": [14, 15, 17], "baseline": [9, 13, 8], "teacher teacher": [18] * 3}
    p = {label: float(stats.ttest_rel(np.array(each), full).pvalue) for label, each in others.items()}
    first, second, third = sorted(p, key=lambda label: p[label])
    expected = {first: 3 * p[first], second: max(3 * p[first], 2 * p[second])}
    expected[third] = max(expected[second], p[third])
    assert {label: float(ones[label]) for label in others} == pytest.approx(expected, abs=5e-4)


def test_teachers_alone_cost_nothing_of_their_own(parts):
    costs = {row[0]: row for row in parts[2].rows}
    assert [costs[label][1] for label in costs] == ["11.0", "11.0", "11.0", ""]
    assert "Time and memory of full recipe include teacher teacher, trained in the same run." in parts[2].notes
