"""The crop around the moving person of a depth video, on scenes whose person is known."""

from __future__ import annotations

import numpy as np
import pytest

from kdcore import Modality, Signal
from kdcore_video.motion_crop import MotionCrop, box, find_person

AXES = ("time", "height", "width", "channel")
WALL, BODY, FRAMES = 4000, 2500, 8
TOP, BOTTOM = 20, 80


def scene(lefts, *, wall=WALL, height=100, width=140, seed=None, holes=0.0):
    """A body of 60 x 20 pixels whose left edge is at `lefts`, with noise of ±20 mm and holes; and its masks."""
    video = np.full((len(lefts), height, width), wall, np.int64)
    mask = np.zeros(video.shape, bool)
    for frame, left in enumerate(lefts):
        mask[frame, TOP:BOTTOM, max(left, 0) : left + 20] = True
    video[mask] = BODY
    if seed is not None:
        random = np.random.default_rng(seed)
        video = np.where(video > 0, video + random.integers(-20, 21, video.shape), 0)
        video[random.random(video.shape) < holes] = 0
    return video.astype(np.uint16), mask


def recording(video):
    return Signal(video[..., None], rate=30.0)


def found(video, threshold=100.0, reach=500.0, smallest=0.001):
    return find_person(video, threshold, reach, smallest)


WALKS = list(range(40, 40 + 4 * FRAMES, 4))


def test_a_body_in_front_of_a_wall_is_found_exactly():
    video, mask = scene(WALKS)
    person = found(video)
    assert np.array_equal(person.region, mask.any(axis=0))
    assert np.array_equal(person.mask, mask)


def test_noise_and_holes_change_no_box():
    clean, _ = scene(WALKS)
    noisy, mask = scene(WALKS, seed=0, holes=0.1)
    assert (noisy == 0).mean() == pytest.approx(0.1, abs=0.01)
    assert np.abs(np.subtract(box(found(noisy), 0.1), box(found(clean), 0.1))).max() <= 1
    truth = mask & (noisy > 0)
    assert (found(noisy).mask != truth).sum() < 0.01 * truth.sum()


def test_a_wall_that_is_not_measured():
    video, mask = scene(WALKS, wall=0)
    assert np.array_equal(found(video).mask, mask)


def test_a_still_object_nearer_than_the_person_is_left_out():
    video, mask = scene(WALKS)
    video[:, 50:100, 100:130] = 1500  # hides nothing of the person at first, then part of it
    person = found(video)
    assert not person.region[50:, 100:].any()
    assert np.array_equal(person.mask, mask & (video == BODY))
    assert box(person, 0.0)[0] == TOP


def test_still_parts_of_the_person_belong_to_it():
    video, mask = scene([60] * FRAMES)  # only an arm moves, at the height of the shoulders
    for frame in range(FRAMES):
        row = 30 + 3 * frame
        video[frame, row : row + 6, 80:100] = BODY
        mask[frame, row : row + 6, 80:100] = True
    person = found(video)
    assert np.array_equal(person.mask, mask)
    top, left, side = box(person, 0.1)
    assert (top, side) == (14, 72)
    assert left <= 60
    assert left + side >= 100


def test_reach_limits_what_is_added():
    video, _ = scene(WALKS)
    video[:, 80:90, :] = BODY + 400  # a floor whose rows touch the body
    assert found(video, reach=500).region[85].all()
    assert not found(video, reach=300).region[85].any()


def test_the_box_contains_the_motion_and_the_height_with_its_margin():
    video, _ = scene([40] * 4 + [50] * 4)
    assert box(found(video), 0.0) == (20, 25, 60)
    assert box(found(video), 0.1) == (14, 19, 72)


def test_the_same_person_further_away_gives_the_same_clip():
    far, near = np.full((4, 100, 140), WALL, np.uint16), np.full((4, 200, 280), WALL, np.uint16)
    for frame in range(4):
        left = 50 + 4 * frame
        far[frame, 30:70, left : left + 14] = BODY
        near[frame, 60:140, 2 * left : 2 * left + 28] = BODY
    crop = MotionCrop(size=24)
    assert np.array_equal(crop(recording(near)).values, crop(recording(far)).values)


@pytest.mark.parametrize("lefts", [[0, 4, 8, 12], [108, 112, 116, 120], [-10, -6, -2, 2]])
def test_at_the_border_the_box_stays_in_the_frame(lefts):
    video, mask = scene(lefts)
    top, left, side = box(found(video), 0.1)
    assert min(top, left) >= 0
    assert top + side <= 100
    assert left + side <= 140
    seen = mask[:, top : top + side, left : left + side]
    assert seen.sum() == mask.sum()


def test_wide_motion_takes_the_short_side():
    video, _ = scene(list(range(0, 120, 8)))
    assert box(found(video), 0.1)[2] == 100
    assert MotionCrop()(recording(video)).values.shape == (15, 100, 100, 1)
    assert MotionCrop(size=20)(recording(video)).values.shape == (15, 20, 20, 1)


def test_the_largest_of_two_moving_things():
    video, mask = scene(WALKS)
    for frame in range(FRAMES):
        video[frame, 5:12, 120 : 124 + frame] = 3000  # a door
    assert np.array_equal(found(video).mask, mask)


def test_a_recording_in_which_nothing_moves():
    video, _ = scene([60] * FRAMES, seed=1, holes=0.05)
    with pytest.warns(UserWarning, match="nothing moves"):
        kept = MotionCrop(background=WALL, still="keep")(recording(video))
    assert np.array_equal(kept.values[..., 0], video[:, :, 20:120])
    with pytest.raises(ValueError, match="nothing moves"):
        MotionCrop()(recording(video))


def test_motion_smaller_than_asked_for_is_noise():
    video, _ = scene([60] * FRAMES)
    video[3, 5:10, 5:10] = 3000
    assert found(video, smallest=0.001) is not None
    assert found(video, smallest=0.002) is None
    video, _ = scene(WALKS, wall=BODY + 80)
    assert found(video) is None
    assert found(video, threshold=70) is not None


def test_background_and_distance():
    video, mask = scene(WALKS, seed=2)
    video[2, 40:44, 50:54] = video[:, 30:32, 20:28] = 0  # holes in the body and in the wall
    before = video.copy()
    top, left, side = box(found(video), 0.1)
    cut = np.s_[:, top : top + side, left : left + side]
    seen = (mask & (video > 0))[cut]
    plain = MotionCrop(size=side)(recording(video)).values[..., 0]
    assert np.array_equal(plain, video[cut])
    painted = MotionCrop(size=side, background=9000, distance=1000)(recording(video)).values[..., 0]
    assert (painted[~seen] == 9000).all()
    assert np.median(painted[seen]) == 1000
    shift = 1000 - np.median(video[cut][seen])
    assert np.array_equal(painted[seen], video[cut][seen] + shift)
    moved = MotionCrop(size=side, distance=1000)(recording(video)).values[..., 0]
    assert np.array_equal(moved == 0, video[cut] == 0)
    assert painted.dtype == plain.dtype == np.uint16
    assert np.array_equal(video, before)


def test_distances_stay_within_their_type():
    video, mask = scene(WALKS)
    top, left, side = box(found(video), 0.1)
    seen = mask[:, top : top + side, left : left + side]
    assert MotionCrop(size=side, distance=65000)(recording(video)).values[..., 0][~seen].tolist() == [65535] * int(
        (~seen).sum()
    )
    nearest = MotionCrop(size=side, distance=1)(recording(video)).values[..., 0]
    assert (nearest[seen] == 1).all()


def test_times_are_kept():
    video, _ = scene(WALKS)
    signal = Signal(video[..., None], rate=15.0, start=2.0)
    assert np.array_equal(MotionCrop()(signal).clock, signal.clock)


def test_only_depth_in_millimetres():
    with pytest.raises(ValueError, match="depth video"):
        MotionCrop()(Signal(np.zeros((4, 8, 8, 3), np.uint8), rate=30.0))
    with pytest.raises(ValueError, match="float32"):
        MotionCrop()(recording(scene(WALKS)[0].astype(np.float32)))
    with pytest.raises(ValueError, match="in mm"):
        MotionCrop(spec=Modality("depth", AXES, AXES, units="m"))
