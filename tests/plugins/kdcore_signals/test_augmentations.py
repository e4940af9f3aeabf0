"""Random changes: what they change and what they leave."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcore_signals.augmentations import (
    ChannelDropout,
    Jitter,
    Rotation3d,
    Scaling,
    TimeCrop,
    TimeMask,
    TimeShift,
    TimeWarp,
    rotations,
)

ALL = [
    Jitter(),
    Scaling(),
    ChannelDropout(probability=0.5),
    Rotation3d(),
    TimeWarp(),
    TimeShift(),
    TimeCrop(),
    TimeMask(max_fraction=0.9),
]
every_one = pytest.mark.parametrize("change", ALL, ids=lambda change: type(change).__name__)


@every_one
@given(st.integers(1, 4), st.integers(1, 30), st.booleans(), st.sampled_from([torch.float32, torch.float64]))
@settings(max_examples=20, deadline=None)
def test_shape_and_type_stay_and_the_input_is_untouched(change, batch, length, skeleton, dtype):
    x = torch.randn(batch, 6, length, *((5, 2) if skeleton else ()), dtype=dtype)
    before = x.clone()
    y = change(x)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert y.isfinite().all()
    assert torch.equal(x, before)


@every_one
def test_it_changes_samples_one_by_one_and_again_alike_from_the_same_seed(change):
    assert change.augmentation
    x = torch.randn(1, 6, 40).expand(8, 6, 40)
    torch.manual_seed(1)
    first = change(x)
    torch.manual_seed(1)
    assert torch.equal(change(x), first)
    assert len({tuple(each.flatten().tolist()) for each in first}) > 1
    assert not torch.equal(change(x), first)


@given(st.floats(0, 180), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_rotations_turn_by_their_angle_about_their_axis(degrees, seed):
    torch.manual_seed(seed)
    axis = torch.nn.functional.normalize(torch.randn(1, 3, dtype=torch.float64))
    matrix = rotations(axis, torch.tensor([math.radians(degrees)], dtype=torch.float64))[0]
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(matrix @ axis[0], axis[0])
    assert torch.linalg.det(matrix).item() == pytest.approx(1)
    assert torch.trace(matrix).item() == pytest.approx(1 + 2 * math.cos(math.radians(degrees)))


def test_a_rotated_sensor_keeps_lengths_and_turns_at_most_so_far():
    x = torch.randn(200, 6, 5, dtype=torch.float64)
    y = Rotation3d(max_angle=30)(x)
    before, after = x.unflatten(1, (2, 3)), y.unflatten(1, (2, 3))
    torch.testing.assert_close(after.norm(dim=2), before.norm(dim=2))
    torch.testing.assert_close((after[:, 0] * after[:, 1]).sum(1), (before[:, 0] * before[:, 1]).sum(1))
    angles = torch.cosine_similarity(before, after, dim=2).clamp(-1, 1).acos()
    assert 0.2 < angles.max() <= math.radians(30) + 1e-9


def test_rotation_needs_vectors():
    with pytest.raises(ValueError, match="a multiple of three"):
        Rotation3d()(torch.zeros(1, 4, 5))


@given(st.integers(2, 60), st.integers(2, 8), st.floats(0, 2))
@settings(max_examples=30, deadline=None)
def test_warped_time_runs_forwards_from_beginning_to_end(length, knots, std):
    clock = torch.arange(length, dtype=torch.float64).expand(5, 1, length)
    warped = TimeWarp(std=std, knots=knots)(clock)[:, 0]
    assert (warped.diff(dim=1) > 0).all()
    torch.testing.assert_close(warped[:, 0], torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(warped[:, -1], torch.full((5,), length - 1.0, dtype=torch.float64))
    if std == 0:
        torch.testing.assert_close(warped, clock[:, 0])


def test_shifts_reach_the_limit_and_repeat_the_edges():
    clock = torch.arange(20.0).expand(500, 1, 20)
    moved = TimeShift(max_fraction=0.1)(clock)[:, 0]
    shift = clock[:, 0, 10] - moved[:, 10]
    assert set(shift.tolist()) == {-2, -1, 0, 1, 2}
    torch.testing.assert_close(moved, (clock[:, 0] - shift[:, None]).clamp(0, 19))


def test_crops_play_a_part_at_an_even_speed_and_cut_no_more_than_allowed():
    clock = torch.arange(41.0).expand(500, 1, 41)
    played = TimeCrop(max_fraction=0.1)(clock)[:, 0]
    first, last = played[:, 0], 40 - played[:, -1]
    assert 0 <= first.min() < 0.2
    assert 3.8 < first.max() <= 4
    assert 0 <= last.min() < 0.2
    assert 3.8 < last.max() <= 4
    assert abs(torch.corrcoef(torch.stack([first, last]))[0, 1]) < 0.2
    speed = (40 - first - last) / 40
    torch.testing.assert_close(played, first[:, None] + speed[:, None] * torch.arange(41.0), rtol=0, atol=1e-4)


def test_masked_stretches_are_connected_and_no_longer_than_allowed():
    y = TimeMask(max_fraction=0.25)(torch.ones(400, 3, 20))
    assert torch.equal(y[:, 0], y[:, 2])
    gaps = (y[:, 0] == 0).sum(dim=1)
    assert set(gaps.tolist()) == set(range(6))
    edges = torch.nn.functional.pad(y[:, 0], (1, 1), value=1.0).diff(dim=1).abs().sum(dim=1)
    assert set(edges.tolist()) <= {0.0, 2.0}


def test_dropped_channels_are_whole_and_as_many_as_asked():
    y = ChannelDropout(probability=0.3)(torch.ones(1000, 6, 4))
    assert set(y.sum(dim=2).flatten().tolist()) == {0.0, 4.0}
    assert (y[:, :, 0] == 0).float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_noise_is_as_strong_as_asked():
    x = torch.ones(200, 3, 50)
    assert (Jitter(std=0.2)(x) - x).std().item() == pytest.approx(0.2, rel=0.05)
    factors = Scaling(std=0.2)(x)
    assert torch.equal(factors[:, :, 0], factors[:, :, 49])
    assert factors[:, :, 0].std().item() == pytest.approx(0.2, rel=0.15)
