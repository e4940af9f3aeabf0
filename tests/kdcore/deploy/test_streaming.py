from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kdcore.deploy.streaming import Smoothing, chosen_window, smoothed
from kdcore.errors import DataError

TABLES = st.tuples(st.integers(1, 12), st.integers(2, 5)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(0.0625, 1, width=32))
)


def rows(table):
    return table / table.sum(axis=1, keepdims=True)


@given(TABLES, st.integers(1, 15))
def test_means_are_over_the_windows_up_to_this_one(table, count):
    table = rows(table)
    expected = [np.mean(table[max(0, n - count + 1) : n + 1].astype(np.float64), axis=0) for n in range(len(table))]
    np.testing.assert_allclose(smoothed(table, Smoothing(count)), expected, atol=1e-6)


@given(TABLES, st.integers(2, 15))
def test_the_majority_wins_and_a_tie_goes_to_the_larger_mean(table, count):
    table = rows(table)
    for number, row in enumerate(smoothed(table, Smoothing(count, "majority"))):
        recent = table[max(0, number - count + 1) : number + 1].astype(np.float64)
        votes = [sum(int(np.argmax(each) == c) for each in recent) for c in range(table.shape[1])]
        tied = [c for c, n in enumerate(votes) if n == max(votes)]
        means = recent.mean(axis=0)
        assert means[row.argmax()] == pytest.approx(max(means[c] for c in tied), abs=1e-6)
        assert row.argmax() in tied
        np.testing.assert_allclose(row, np.array(votes) / len(recent), atol=1e-5)
        assert row.sum() == pytest.approx(1)


def test_smoothing_looks_at_nothing_that_comes_later():
    table = rows(np.random.default_rng(0).random((9, 4)))
    for rule in ("mean", "majority"):
        whole = smoothed(table, Smoothing(3, rule))
        np.testing.assert_allclose(whole[:5], smoothed(table[:5], Smoothing(3, rule)))


def test_windows_asked_for_and_those_of_the_student():
    assert chosen_window(None, None, None) is None
    assert chosen_window(None, None, (2.0, 1.0)) == (2.0, 1.0)
    assert chosen_window(3.0, None, None) == (3.0, 3.0)
    assert chosen_window(None, 0.5, (2.0, 1.0)) == (2.0, 0.5)
    for wrong in [(None, 1.0, None), (0.0, None, None), (1.0, -1.0, None), (1.0, float("inf"), None)]:
        with pytest.raises(DataError):
            chosen_window(*wrong)
    with pytest.raises(DataError, match="at least 1 window"):
        Smoothing(0)
