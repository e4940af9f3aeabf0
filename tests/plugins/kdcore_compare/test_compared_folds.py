"""Comparisons of configurations whose runs are folds."""

from __future__ import annotations

import pytest
import yaml
from made_up import made_up
from scipy import stats

from kdcore_compare.comparability import IncomparableError
from kdcore_compare.comparison import compare_sources
from kdcore_compare.comparison_report import report_records, report_tables


def fold(folder, name, tested, weight=1):
    run = made_up(folder, {0: 10}, {0: 9}, name=name, split_rule=f"subject {tested} tests", variant=f"{name}-{tested}-{weight}")
    protocol = {"name": "leave-one-subject-out", "test_subject": tested}
    recipe = {"name": name, "data": {"batch_size": 8, "protocol": protocol}, "losses": [{"name": "logits", "weight": weight}]}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return run


def test_folds_differ_in_their_protocol_alone(tmp_path):
    folds = [fold(tmp_path / f"fold-{tested}", "made", tested) for tested in range(3)]
    assert len(compare_sources(["+".join(map(str, folds))]).reference.split_rules) == 3
    heavy = fold(tmp_path / "heavy", "made", 3, weight=2)
    with pytest.raises(IncomparableError, match=r"fold-0 \+ heavy pooled: different configuration \(losses\)$"):
        compare_sources(["+".join(map(str, [*folds, heavy]))])
    again = fold(tmp_path / "again", "made", 2, weight=2)
    with pytest.raises(
        IncomparableError, match=r"fold-2 \+ again pooled: different configuration \(losses\); of the common seeds"
    ):
        compare_sources(["+".join(map(str, [*folds, again]))])


def test_folds_count_once_each(tmp_path):
    """Two seeds on each of three folds: three pairs, not six."""
    sides = []
    for name, gains in (("one", (0, 0, 0)), ("other", (1, 2, 3))):
        folders = [
            made_up(tmp_path / f"{name}{fold}", {0: 10 + gain, 1: 12 + gain}, name=name, split_rule=f"fold {fold}")
            for fold, gain in enumerate(gains)
        ]
        sides.append("+".join(map(str, folders)))
    found = compare_sources(sides)
    difference = found.differences["other"]
    low, high = stats.t.interval(0.95, 2, 0.1, stats.sem([0.05, 0.1, 0.15]))
    assert (difference.n, difference.mean, difference.low, difference.high) == pytest.approx((3, 0.1, low, high))
    assert "3 folds" in difference.test


def test_folds_are_pooled_in_the_counts(tmp_path):
    """Three folds of 20, 6 and 4 samples; the last has none of class sit."""
    folds = {"a": [0, 1] * 10, "b": [0, 0, 0, 0, 1, 1], "c": [0, 0, 0, 0]}
    sides = []
    for name, right in (("one", 0.5), ("other", 0.75)):
        runs = [
            made_up(
                tmp_path / f"{name}-{fold}", dict.fromkeys((0, 1), int(right * len(labels))), name=name,
                split_rule=f"fold {fold}", labels=labels, keys=[f"subject {fold}, trial {n:02d}" for n in range(len(labels))],
            )
            for fold, labels in folds.items()
        ]  # fmt: skip
        sides.append("+".join(map(str, runs)))
    found = compare_sources(sides)
    result, classes, *_ = report_tables(found)
    assert result.title.startswith("Accuracy on the test split, 30 samples in 3 folds;")
    assert [row[:2] for row in classes.rows] == [["walk", "18"], ["sit", "12"]]
    # Of class sit, the first fold has 5 of 10 right and then 7 of 10, the second none of 2 and none of 2.
    assert classes.rows[1][2:4] == ["25.0", "35.0"]
    assert classes.rows[1][4] == "+10.0"
    assert "sit: 2 of 3 folds have samples of this class." in classes.notes
    samples = {row["entry"]: row["mean"] for row in report_records(found) if row["measure"] == "samples"}
    assert samples == {"one": 30, "other": 30}
