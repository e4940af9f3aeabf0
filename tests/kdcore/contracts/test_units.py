"""Units and sampling rates."""

from __future__ import annotations

import pytest

from kdcore.contracts.units import rounded_rate, same_rate


@pytest.mark.parametrize(
    ("one", "other", "same"), [(50, 52.4, True), (50, 47.7, True), (60, 50, False), (47, 50, False), (50, 53, False)]
)
def test_rates_are_the_same_up_to_a_twentieth(one, other, same):
    assert same_rate(one, other) is same


@pytest.mark.parametrize("rate", [25.0, 31.25, 50.0, 102.4, 512.0])
@pytest.mark.parametrize("resolution", [1e-9, 2.4e-7])
def test_a_rate_is_as_round_as_its_time_stamps_allow(rate, resolution):
    step = round(1 / rate / resolution) * resolution  # as a clock with this resolution counts it
    assert rounded_rate(1 / step, resolution) == rate


def test_a_rate_that_the_clock_can_tell_from_a_round_one_stays():
    assert rounded_rate(50.3, 1e-9) == 50.3
    assert rounded_rate(1 / 3, 1e-9) == 0.333333
