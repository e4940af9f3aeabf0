from __future__ import annotations

import optuna
import pytest

from kdcore import KdcoreError
from kdcore_compare.search_space import Choice, Range, parse_space


def test_a_grid_is_every_combination():
    found = parse_space("r", [], ["a=1,2", "b={x: [1,2], y: 3},null"], 0, [])
    assert found.points() == [{"a": a, "b": b} for a in ("1", "2") for b in ("{x: [1,2], y: 3}", "null")]


def test_ranges_are_searched():
    found = parse_space("r", [], ["a=1,2"], 5, ["b=0.01:10:log", "c=1:9:int"])
    assert found.keys == (Choice("a", ("1", "2")), Range("b", 0.01, 10, log=True), Range("c", 1, 9, integer=True))
    assert found.points() == [{}] * 5
    trial = optuna.create_study().ask()
    a, b, c = (key.suggest(trial) for key in found.keys)
    assert a in "12"
    assert 0.01 <= float(b) <= 10
    assert c == str(int(c))


@pytest.mark.parametrize(
    ("grid", "search", "ranges", "said"),
    [
        ([], 0, [], "nothing to vary"),
        (["a"], 0, [], "expected key=value"),
        (["a=1,"], 0, [], "expected key=value"),
        (["a=1"], 0, ["b=1:2"], "requires --search"),
        ([], 3, ["b=1"], "expected key=low:high"),
        ([], 3, ["b=1:2:lgo"], "expected key=low:high"),
        ([], 3, ["b=2:1"], "low must be less"),
        ([], 3, ["b=0:1:log"], "greater than 0 with :log"),
        (["a=1,2"], 3, ["a=1:2"], "given twice"),
    ],
)
def test_what_is_not_understood_is_named(grid, search, ranges, said):
    with pytest.raises(KdcoreError, match=said):
        parse_space("r", [], grid, search, ranges)
