from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from kdcore_compare.significance import holm, paired, unpaired

VALUES = st.lists(st.floats(-1, 1), min_size=2, max_size=12)


@given(VALUES, VALUES)
def test_pairs_are_tested_as_scipy_does(one, other):
    a, b = (np.array(each[: min(len(one), len(other))]) for each in (one, other))
    assume((a - b).std() > 1e-6)
    theirs = stats.ttest_rel(a, b)
    low, high = theirs.confidence_interval(0.95)
    mine = paired((a - b).tolist())
    assert (mine.p, mine.low, mine.high) == pytest.approx((theirs.pvalue, low, high), rel=1e-7, abs=1e-12)


@given(VALUES, VALUES)
def test_what_does_not_pair_is_tested_by_welch_as_scipy_does(one, other):
    assume(np.std(one) > 1e-6 or np.std(other) > 1e-6)
    theirs = stats.ttest_ind(one, other, equal_var=False)
    low, high = theirs.confidence_interval(0.95)
    mine = unpaired(one, other)
    assert (mine.p, mine.low, mine.high) == pytest.approx((theirs.pvalue, low, high), rel=1e-6, abs=1e-12)


def brute_force_holm(p_values):
    """The smallest level at which Holm's procedure, step by step, rejects each hypothesis."""

    def rejected(level):
        left, found = sorted(range(len(p_values)), key=lambda i: p_values[i]), set()
        while left and p_values[left[0]] * len(left) <= level:
            found.add(left.pop(0))
        return found

    levels = sorted({min(1.0, p * k) for p in p_values for k in range(1, len(p_values) + 1)} | {1.0})
    return [next((level for level in levels if i in rejected(level)), 1.0) for i in range(len(p_values))]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_the_smallest_level_that_rejects(p_values):
    assert holm(p_values) == pytest.approx(brute_force_holm(p_values))


def test_holm_keeps_the_order_and_corrects_one_comparison_by_nothing():
    """The textbook case: 0.01, 0.04, 0.03, 0.005 become 0.03, 0.06, 0.06, 0.02 (R: p.adjust(p, "holm"))."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.04]) == [0.04]


def test_students_own_sleep_data():
    """Hours of sleep gained by two drugs, as Student printed them in 1908: t = 4.06, the interval 0.70 to 2.46."""
    one = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    other = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = paired([b - a for a, b in zip(one, other, strict=True)], "patients")
    assert found.mean == pytest.approx(1.58)
    assert (found.low, found.high) == pytest.approx((0.7001142, 2.4598858), abs=1e-6)
    assert found.p == pytest.approx(0.002833, abs=1e-6)
    assert found.verdict() == "better"
    assert found.verdict(more_is_better=False) == "worse"
    assert found.test == "paired Student's t-test, two-sided, 10 patients, 9 degrees of freedom"


def test_one_seed_concludes_nothing():
    found = paired([0.5])
    assert (found.low, found.high, found.p) == (None, None, None)
    assert not found.conclusive
    assert "no conclusion is possible" in found.test
    assert "no conclusion is possible" in unpaired([0.5], [0.1, 0.2]).test
    assert found.verdict() == "no conclusion"


@pytest.mark.parametrize(("value", "said"), [(0.0, "all differences are zero"), (0.1, "spread cannot be estimated")])
def test_equal_differences_are_no_proof(value, said):
    found = paired([value] * 3)
    assert said in found.test
    assert not found.conclusive


def test_an_interval_around_zero_is_unclear():
    assert paired([0.1, -0.1, 0.05]).verdict() == "unclear"


def test_repeated_folds_have_the_corrected_error_of_nadeau_and_bengio():
    d, share = [0.02, 0.05, -0.01, 0.04, 0.03, 0.0], 1 / 3
    found = paired(d, "folds", overlap=share)
    error = np.std(d, ddof=1) * np.sqrt(1 / len(d) + share)
    quantile = stats.t.ppf(0.975, len(d) - 1)
    assert (found.low, found.high) == pytest.approx((np.mean(d) - quantile * error, np.mean(d) + quantile * error))
    assert found.p == pytest.approx(2 * stats.t.sf(np.mean(d) / error, len(d) - 1))
    assert "Nadeau and Bengio" in found.test


@pytest.mark.filterwarnings("error")
def test_an_undefined_metric_has_no_p_value():
    for found in (paired([0.1, float("nan"), 0.2]), unpaired([0.1, float("nan")], [0.1, 0.2])):
        assert (found.low, found.high, found.p, found.verdict()) == (None, None, None, "no conclusion")
        assert "undefined" in found.test
