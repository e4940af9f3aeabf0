"""Clips out of recordings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdcore import Signal
from kdcore_video.clip import Clip, centred, fitted


@pytest.mark.parametrize("segments", [3, 8, 25])
@pytest.mark.parametrize("span", [1, 5])
def test_indices_equal_the_published_code(golden, segments, span):
    numbers = golden("d_trn_tsn")
    expected = numbers[f"tsn.seg{segments}_len{span}.test_1based"]
    checked = 0
    for frames, row in zip(numbers["tsn.lengths"], expected, strict=True):
        if (row == -999).any():
            continue
        assert np.array_equal(centred(int(frames), segments, span) + 1, row), frames
        checked += 1
    assert checked >= 9


@given(st.integers(1, 300), st.integers(1, 32), st.integers(1, 6))
def test_one_in_each_stretch(frames, segments, span):
    if frames < span:
        with pytest.raises(ValueError, match="too short"):
            centred(frames, segments, span)
        return
    positions = centred(frames, segments, span)
    assert len(positions) == segments
    assert positions.min() >= 0
    assert positions.max() + span <= frames
    for i, position in enumerate(positions):
        assert i * (frames - span + 1) / segments - 1 < position <= (i + 1) * (frames - span + 1) / segments


def counted(frames, height=24, width=32, channels=3, dtype=np.uint8):
    """A video whose frame t is filled with the number t."""
    return np.broadcast_to(np.arange(frames, dtype=dtype)[:, None, None, None], (frames, height, width, channels)).copy()


def test_takes_the_middle_of_each_segment():
    clip = Clip(segments=4, size=16)(Signal(counted(40), rate=20.0, start=1.0))
    assert clip.values.shape == (4, 16, 16, 3)
    assert clip.values.dtype == np.uint8
    assert clip.values[:, 0, 0, 0].tolist() == [5, 15, 25, 35]
    np.testing.assert_allclose(clip.clock, [1.25, 1.75, 2.25, 2.75])
    assert clip.rate == pytest.approx(2.0)


def test_short_recordings_repeat_frames():
    clip = Clip(segments=8, size=16)(Signal(counted(3), rate=30.0))
    assert clip.values[:, 0, 0, 0].tolist() == [0, 0, 0, 1, 1, 2, 2, 2]


def test_input_is_left_alone():
    video = counted(10)
    before = video.copy()
    Clip(segments=4, size=8)(Signal(video, rate=30.0))
    assert np.array_equal(video, before)


def test_crop_is_central_and_stretch_takes_all():
    video = np.zeros((1, 20, 60, 1), np.uint8)
    video[:, :, 20:40] = 200
    assert (fitted(video, 20, "crop") == 200).all()
    stretched = fitted(video, 20, "stretch")
    assert stretched.shape == (1, 20, 20, 1)
    assert stretched.mean() == pytest.approx(200 / 3, abs=3)
    assert fitted(video, 10, "keep").shape == (1, 10, 30, 1)


def test_depth_keeps_its_type_and_invents_no_distances():
    video = np.zeros((4, 32, 32, 1), np.uint16)
    video[:, :, 13:] = 3000
    clip = Clip(segments=2, size=20)(Signal(video, rate=30.0))
    assert clip.values.dtype == np.uint16
    assert set(np.unique(clip.values)) == {0, 3000}


def test_depth_range_makes_bytes():
    video = np.array([0, 500, 2500, 4500, 9000], np.uint16).reshape(1, 1, 5, 1).repeat(5, axis=1)
    clip = Clip(segments=1, size=5, depth_range=(500, 4500))(Signal(video, rate=30.0))
    assert clip.values.dtype == np.uint8
    assert clip.values[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_what_is_no_video_is_refused():
    with pytest.raises(ValueError, match="height, width"):
        Clip()(Signal(np.zeros((50, 3)), rate=50.0))
    with pytest.raises(ValueError, match="too short"):
        Clip()(Signal(np.zeros((0, 8, 8, 3), np.uint8), rate=30.0))
    with pytest.raises(ValueError, match="nearest, farthest"):
        Clip(depth_range=(4000, 500))


def test_a_real_depth_video(recordings):
    from scipy.io import loadmat

    path = recordings / "utd-mhad" / "Depth" / "a1_s1_t1_depth.mat"
    if not path.is_file():
        pytest.skip("no UTD-MHAD depth video here")
    video = loadmat(path)["d_depth"].transpose(2, 0, 1)[..., None]
    clip = Clip(segments=8, size=56)(Signal(video, rate=30.0))
    assert clip.values.shape == (8, 56, 56, 1)
    assert set(np.unique(clip.values)) <= set(np.unique(video))
