"""Transforms and augmentations of batches of clips."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcore import Modality
from kdcore_video.transforms import DepthRange, Flip, MultiScaleCrop, Pixels, RandomSegments, RgbDifference


def numbered(batch, frames):
    return torch.arange(frames).view(1, frames, 1, 1, 1).repeat(batch, 1, 1, 2, 2)


class TestRandomSegments:
    @settings(max_examples=20, deadline=None)
    @given(st.integers(1, 40), st.integers(1, 10))
    def test_one_frame_of_each_stretch(self, frames, segments):
        kept = RandomSegments(segments=segments).train()(numbered(5, frames))[:, :, 0, 0, 0]
        assert kept.shape == (5, segments)
        for i in range(segments):
            low, high = i * frames // segments, max((i + 1) * frames // segments - 1, i * frames // segments)
            assert kept[:, i].min() >= low
            assert kept[:, i].max() <= high

    def test_all_frames_come_up_and_clips_differ(self):
        torch.manual_seed(0)
        kept = RandomSegments(segments=2).train()(numbered(200, 8))[:, :, 0, 0, 0]
        assert set(kept.unique().tolist()) == set(range(8))
        assert len(kept.unique(dim=0)) == 16

    def test_evaluation_takes_the_middle(self):
        kept = RandomSegments(segments=4).eval()(numbered(2, 32))[:, :, 0, 0, 0]
        assert kept.tolist() == [[4, 12, 20, 28]] * 2

    def test_runs_per_batch(self):
        assert RandomSegments.per_batch
        assert not RandomSegments.augmentation


class TestMultiScaleCrop:
    def test_evaluation_takes_the_middle(self):
        x = torch.randint(0, 255, (2, 3, 1, 10, 14), dtype=torch.uint8)
        assert torch.equal(MultiScaleCrop(size=6).eval()(x), x[..., 2:8, 4:10])
        assert torch.equal(MultiScaleCrop().eval()(x), x[..., 2:12])

    def test_training_cuts_all_frames_of_a_clip_alike(self):
        torch.manual_seed(1)
        ramp = torch.linspace(0, 1, 32).expand(1, 1, 1, 32, 32) + torch.linspace(0, 10, 32).view(1, 1, 1, 32, 1)
        out = MultiScaleCrop(size=24).train()(ramp.repeat(16, 3, 1, 1, 1))
        assert out.shape == (16, 3, 1, 24, 24)
        assert torch.equal(out[:, 0], out[:, 2])
        assert len(out[:, 0, 0, 0, 0].unique()) > 3

    def test_a_crop_of_a_ramp_is_a_ramp_inside_it(self):
        torch.manual_seed(2)
        size = 64
        ramp = torch.arange(size, dtype=torch.float64).expand(200, 1, 1, size, size)
        rows = MultiScaleCrop(scales=(1.0, 0.75, 0.5)).train()(ramp)[:, 0, 0, size // 2]
        # A crop of `side` pixels is resized to `size`: the ramp rises by side / size from pixel to pixel.
        sides = (rows[:, 40] - rows[:, 20]) / 20 * size
        assert set(sides.round().tolist()) == {64.0, 48.0, 32.0}
        lefts = rows[:, 32] - sides / 2 + 0.5 - sides / size / 2
        room = size - sides
        quarters = torch.where(room > 0, 4 * lefts / room.clamp(min=1), 0)
        assert set(quarters.round().tolist()) == {0.0, 1.0, 2.0, 3.0, 4.0}
        np.testing.assert_allclose(quarters, quarters.round(), atol=0.05)

    def test_whole_frames_at_scale_one(self):
        x = torch.randint(0, 255, (2, 3, 2, 8, 8), dtype=torch.uint8)
        out = MultiScaleCrop(scales=(1.0,)).train()(x)
        assert out.dtype == torch.uint8
        assert torch.equal(out, x)

    def test_small_frames_are_refused(self):
        with pytest.raises(ValueError, match="smaller than 16"):
            MultiScaleCrop(size=16)(torch.zeros(1, 2, 3, 12, 20))


class TestFlip:
    def test_mirrors_whole_clips(self):
        x = torch.randn(64, 2, 3, 4, 5)
        torch.manual_seed(0)
        out = Flip()(x)
        mirrored = (out == x.flip(-1)).flatten(1).all(1)
        kept = (out == x).flatten(1).all(1)
        assert (mirrored ^ kept).all()
        assert 16 < mirrored.sum() < 48
        assert torch.equal(Flip(probability=0)(x), x)
        assert torch.equal(Flip(probability=1)(x), x.flip(-1))

    def test_mirrored_flow_runs_the_other_way(self):
        x = torch.randn(2, 3, 4, 4, 5)
        out = Flip(probability=1, flow=True)(x)
        assert torch.equal(out[:, :, 0::2], -x[:, :, 0::2].flip(-1))
        assert torch.equal(out[:, :, 1::2], x[:, :, 1::2].flip(-1))
        stored = torch.tensor([0, 255, 100, 7], dtype=torch.uint8).view(1, 1, 4, 1, 1)
        assert Flip(probability=1, flow=True)(stored).flatten().tolist() == [255, 255, 155, 7]


class TestPixels:
    def test_bytes(self):
        x = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 3, 1, 1)
        out = Pixels(mean=(0.5, 0.5, 0.0), std=(0.5, 0.1, 2.0))(x).flatten()
        torch.testing.assert_close(out, torch.tensor([-1.0, -3.0, 0.5]))

    def test_floats_are_taken_as_they_are(self):
        x = torch.rand(2, 4, 3, 5, 5, dtype=torch.float64)
        out = Pixels(mean=(0.5,), std=(0.25,))(x)
        assert out.dtype == torch.float64
        torch.testing.assert_close(out, (x - 0.5) / 0.25)

    def test_channels_must_agree(self):
        with pytest.raises(ValueError, match="3 entries, the pictures have 2"):
            Pixels()(torch.zeros(1, 2, 4, 4))


def test_depth_range():
    x = torch.tensor([0, 100, 500, 2500, 4500, 8000]).to(torch.uint16)
    out = DepthRange(missing=-1.0)(x.view(1, 1, 1, 1, 6)).flatten()
    assert out.tolist() == [-1.0, 0.0, 0.0, 0.5, 1.0, 1.0]
    with pytest.raises(ValueError, match="less than"):
        DepthRange(near=2.0, far=1.0)


def test_differences_add_up_to_the_whole_change():
    clip = torch.rand(2, 6, 3, 4, 4, dtype=torch.float64)
    total = RgbDifference(gain=2.0)(clip).sum(1)
    torch.testing.assert_close(total, 2 * (clip[:, -1] - clip[:, 0]))


def test_later_frames_are_kept_as_further_channels():
    clip = torch.rand(2, 5, 3, 4, 4)
    both = RgbDifference(gain=2.0, frames=True)
    out = both(clip)
    assert out.shape == (2, 4, 6, 4, 4)
    torch.testing.assert_close(out[:, :, :3], RgbDifference(gain=2.0)(clip))
    assert torch.equal(out[:, :, 3:], clip[:, 1:])
    axes = ("time", "height", "width", "channel")
    spec = Modality("depth", axes, axes, "mm", channels=("depth",))
    assert both.output_spec(spec).channels == ("change of depth", "depth")
    assert RgbDifference().output_spec(spec) == spec


def test_what_stands_still_vanishes():
    assert not RgbDifference()(torch.rand(1, 1, 3, 4, 4).expand(1, 5, 3, 4, 4)).any()


@pytest.mark.parametrize("clip", [torch.rand(1, 1, 3, 4, 4), torch.zeros(1, 4, 3, 4, 4, dtype=torch.uint8)])
def test_unfit_clips_are_refused(clip):
    with pytest.raises(ValueError, match="rgb-difference"):
        RgbDifference()(clip)
