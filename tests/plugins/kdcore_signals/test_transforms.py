"""Deterministic transforms of signals."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdcore import Signal
from kdcore_signals.lengths import Crop, Pad, Resample
from kdcore_signals.transforms import Magnitude, Normalise, Scale


def signal(length, *trailing, rate=50.0, start=3.0, seed=0):
    return Signal(np.random.default_rng(seed).normal(size=(length, *trailing)), rate, start)


@given(st.integers(2, 40), st.integers(1, 60), st.booleans())
def test_resampling_to_a_length_interpolates_at_the_recorded_times(length, wanted, irregular):
    times = np.sort(np.random.default_rng(length).uniform(0, 2, length)) if irregular else None
    recorded = Signal(np.random.default_rng(1).normal(size=(length, 2, 3)), 50.0, 0.5, times)
    found = Resample(length=wanted)(recorded)
    at = np.linspace(recorded.clock[0], recorded.clock[-1], wanted)
    for joint in range(2):
        for channel in range(3):
            oracle = np.interp(at, recorded.clock, recorded.values[:, joint, channel])
            np.testing.assert_allclose(found.values[:, joint, channel], oracle, atol=1e-12)
    np.testing.assert_allclose(found.clock, at, atol=1e-9)


def test_resampling_to_a_rate_keeps_the_last_sample_where_it_falls_on_the_clock():
    recorded = signal(101, 3)
    found = Resample(rate=25.0)(recorded)
    np.testing.assert_allclose(found.values, recorded.values[::2], atol=1e-12)
    assert (found.rate, found.start) == (25.0, 3.0)


def test_resampling_twice_as_densely_and_back_changes_nothing():
    recorded = signal(20, 3)
    back = Resample(length=20)(Resample(length=39)(recorded))
    np.testing.assert_allclose(back.values, recorded.values, atol=1e-12)
    assert back.rate == pytest.approx(50.0)


def test_anti_aliasing_removes_what_the_new_rate_cannot_hold():
    times = np.arange(400) / 100.0
    fast = Signal(np.sin(2 * np.pi * 19 * times)[:, None], 100.0)
    slow = Signal(np.sin(2 * np.pi * 0.5 * times)[:, None], 100.0)
    plain, filtered = Resample(rate=20.0), Resample(rate=20.0, anti_aliasing=True)
    assert plain(fast).values.std() > 0.5
    assert filtered(fast).values.std() < 0.1
    assert filtered(slow).values.std() > 0.9 * plain(slow).values.std()


def test_integers_stay_integers():
    frames = Signal(np.array([[0], [255]], dtype=np.uint8), 10.0)
    found = Resample(length=4)(frames).values
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[:, 0], [0, 85, 170, 255])


def test_a_single_sample_is_held():
    np.testing.assert_array_equal(Resample(length=3)(Signal(np.array([[7.0]]), 50.0)).values, [[7.0]] * 3)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Signal(np.zeros((0, 3)), 50.0), "no samples"),
        (Signal(np.zeros((2, 3)), 50.0, times=np.array([1.0, 0.0])), "runs backwards"),
    ],
)
def test_unfit_signals_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        Resample(length=4)(bad)


@pytest.mark.parametrize("options", [{}, {"length": 3, "rate": 5.0}])
def test_length_and_rate_exclude_each_other(options):
    with pytest.raises(ValueError, match="either length or rate"):
        Resample(**options)


@pytest.mark.parametrize(("at", "first"), [("start", 0), ("centre", 3), ("end", 6)])
def test_crop_keeps_values_at_their_times(at, first):
    recorded = signal(10, 2)
    found = Crop(length=4, at=at)(recorded)
    np.testing.assert_array_equal(found.values, recorded.values[first : first + 4])
    np.testing.assert_allclose(found.clock, recorded.clock[first : first + 4])
    assert len(Crop(length=4)(signal(3, 2))) == 3


@pytest.mark.parametrize(("mode", "tail"), [("zeros", [0, 0, 0]), ("edge", [2, 2, 2]), ("repeat", [1, 2, 1])])
def test_pad_continues_the_signal(mode, tail):
    recorded = Signal(np.array([[1.0], [2.0]]), 10.0, times=np.array([0.0, 0.3]))
    found = Pad(length=5, mode=mode)(recorded)
    np.testing.assert_array_equal(found.values[:, 0], [1, 2, *tail])
    np.testing.assert_allclose(found.clock, [0, 0.3, 0.4, 0.5, 0.6])
    assert Pad(length=2)(recorded) is recorded


@pytest.mark.parametrize("shape", [(300, 3, 7), (20, 3, 5, 4, 2)])
def test_normalised_training_samples_have_mean_zero_and_deviation_one(shape):
    x = 5 * torch.randn(shape) + torch.arange(3.0).view(1, 3, *[1] * (len(shape) - 2))
    transform = Normalise()
    transform.fit(x)
    y = transform(x).transpose(0, 1).flatten(1)
    torch.testing.assert_close(y.mean(dim=1), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std(dim=1, correction=0), torch.ones(3), atol=1e-5, rtol=0)


def test_normalise_on_clips_of_bytes():
    x = torch.randint(0, 256, (6, 4, 3, 5, 5), dtype=torch.uint8)
    transform = Normalise(channel_axis=2)
    transform.fit(x)
    torch.testing.assert_close(transform.mean, x.float().mean(dim=(0, 1, 3, 4)))
    assert transform(x).shape == x.shape


def test_a_silent_channel_stays_finite():
    transform = Normalise()
    transform.fit(torch.full((4, 1, 5), 9.81))
    torch.testing.assert_close(transform(torch.full((2, 1, 5), 9.81)), torch.zeros(2, 1, 5), atol=1e-5, rtol=0)


def test_statistics_travel_with_the_weights():
    fitted, fresh = torch.nn.Sequential(Normalise()), torch.nn.Sequential(Normalise())
    fitted[0].fit(torch.randn(10, 6, 8))  # type: ignore[operator]
    fresh.load_state_dict(fitted.state_dict())
    x = torch.randn(2, 6, 8)
    torch.testing.assert_close(fresh(x), fitted(x))


def test_normalise_must_be_fitted_first():
    with pytest.raises(RuntimeError, match="must be fitted before use"):
        Normalise()(torch.zeros(1, 3, 4))


def test_scale_and_magnitude():
    x = torch.tensor([3.0, 4.0, 0.0, 0.0, 5.0, 12.0]).view(1, 6, 1)
    torch.testing.assert_close(Scale(factor=2.0, offset=1.0)(x).flatten(), torch.tensor([7.0, 9.0, 1.0, 1.0, 11.0, 25.0]))
    torch.testing.assert_close(Magnitude()(x)[0, 6:, 0], torch.tensor([5.0, 13.0]))
    with pytest.raises(ValueError, match="a multiple of three"):
        Magnitude()(x[:, :4])
