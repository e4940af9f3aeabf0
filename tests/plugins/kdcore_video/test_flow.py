"""Optical flow."""

from __future__ import annotations

import numpy as np
import pytest

from kdcore import Signal
from kdcore_video.flow import OpticalFlow


def texture(size=96, seed=0):
    import cv2

    noise = np.random.default_rng(seed).random((size, size)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return (smooth - smooth.min()) / np.ptp(smooth)


def sliding(dx, dy, frames=8, size=64, top=16):
    """Windows onto a texture, so placed that what is seen moves by (dx, dy) pixels from frame to frame."""
    picture = texture()
    return np.stack([picture[top - t * dy : top - t * dy + size, top - t * dx : top - t * dx + size] for t in range(frames)])


def pixels_per_frame(values, bound=20.0):
    return values.astype(float) / 255 * 2 * bound - bound


@pytest.mark.parametrize("method", ["dis", "farneback"])
@pytest.mark.parametrize(("dx", "dy"), [(2, 0), (0, -1), (1, 2)])
def test_finds_the_motion_of_a_colour_video(method, dx, dy):
    video = np.rint(sliding(dx, dy) * 255).astype(np.uint8)[..., None].repeat(3, axis=-1)
    flow = OpticalFlow(segments=2, stack=3, size=64, method=method)(Signal(video, rate=30.0))
    assert flow.values.shape == (2, 64, 64, 6)
    assert flow.values.dtype == np.uint8
    inner = pixels_per_frame(flow.values[:, 16:-16, 16:-16])
    assert np.median(inner[..., 0::2]) == pytest.approx(dx, abs=0.3)
    assert np.median(inner[..., 1::2]) == pytest.approx(dy, abs=0.3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_colours_may_be_floats(dtype):
    video = sliding(2, 1)[..., None].repeat(3, axis=-1).astype(dtype)
    flow = OpticalFlow(segments=1, stack=2, size=64)(Signal(video, rate=30.0))
    inner = pixels_per_frame(flow.values[:, 16:-16, 16:-16])
    assert np.median(inner[..., 0::2]) == pytest.approx(2, abs=0.3)
    assert np.median(inner[..., 1::2]) == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize(
    ("video", "said"),
    [
        (np.full((8, 16, 16, 3), 200.0, np.float32), "between 0 and 1, not from 200 to 200"),
        (np.zeros((8, 16, 16, 3), np.uint16), "not 3 channels of uint16"),
        (np.zeros((8, 16, 16, 4), np.float32), "not 4 channels of float32"),
    ],
)
def test_other_videos_are_refused(video, said):
    with pytest.raises(ValueError, match=said):
        OpticalFlow(size=16)(Signal(video, rate=30.0))


def test_finds_the_motion_of_a_depth_video():
    video = (1000 + 2000 * sliding(2, 1)).astype(np.uint16)[..., None]
    flow = OpticalFlow(segments=1, stack=2, size=64, depth_range=(500, 3500))(Signal(video, rate=30.0))
    inner = pixels_per_frame(flow.values[:, 16:-16, 16:-16])
    assert np.median(inner[..., 0::2]) == pytest.approx(2, abs=0.4)


def test_motion_beyond_the_bound_is_clipped():
    video = np.rint(sliding(2, 0) * 255).astype(np.uint8)[..., None]
    flow = OpticalFlow(segments=1, stack=1, size=64, bound=1.0)(Signal(video, rate=30.0))
    assert np.median(flow.values[0, 16:-16, 16:-16, 0]) == 255


def test_stacks_start_where_their_frames_exist():
    video = np.zeros((9, 16, 16, 1), np.uint8)
    flow = OpticalFlow(segments=4, stack=5, size=16)(Signal(video, rate=10.0))
    assert flow.clock.tolist() == [0.0, 0.1, 0.2, 0.3]
    assert np.abs(pixels_per_frame(flow.values)).max() < 0.1
    with pytest.raises(ValueError, match="too short for 6 consecutive frames"):
        OpticalFlow(size=16)(Signal(video[:5], rate=10.0))
