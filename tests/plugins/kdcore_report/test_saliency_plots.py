"""Pictures of where participants looked."""

from __future__ import annotations

import numpy as np
import pytest

from kdcore_report.saliency_plots import Saliency, draw_saliency, lit


def image(who="sensor", titles=("map",)):
    pixels = np.random.default_rng(0).normal(size=(3, 32, 32))
    return Saliency(who, "wave", True, pixels, {title: np.eye(4) for title in titles})


def clip(frames, places):
    return Saliency("camera", "punch", False, np.random.default_rng(0).normal(size=(frames, 3, 24, 36)), {"map": places})


def test_a_lit_picture_keeps_its_size_and_what_is_not_lit():
    ground = np.random.default_rng(0).random((40, 64))
    places = np.zeros((5, 8))
    places[1, 6] = 1.0
    before = ground.copy()
    shown = lit(ground, places)
    assert shown.shape == (40, 64, 3)
    assert np.array_equal(ground, before)
    assert 0 <= shown.min() <= shown.max() <= 1
    np.testing.assert_allclose(shown[:, :40], np.repeat(ground[:, :40, None], 3, axis=2))
    redness = shown[..., 0] - shown[..., 2]
    top, left = np.unravel_index(redness.argmax(), redness.shape)
    assert (top // 8, left // 8) == (1, 6)


@pytest.mark.parametrize(
    "looks",
    [
        [image()],
        [image("one"), image("two"), image("three"), image("four", ["map", "other"])],
        [image("long", [f"map {n}" for n in range(9)])],
        [clip(8, np.ones((8, 3, 4)))],
        [clip(1, np.ones((1, 3, 4))), image()],
        [clip(9, np.zeros((3, 4)))],  # one map for all frames
        [clip(4, np.ones((16, 3, 4)))],  # more moments than frames
        [Saliency("dull", "wave", True, np.zeros((1, 32, 32)), {"map": np.zeros((2, 2))})],
    ],
    ids=["image", "images", "many maps", "clip", "frame", "still map", "finer in time", "flat"],
)
def test_every_kind_of_look_is_drawn(looks, tmp_path):
    from matplotlib.image import imread

    draw_saliency(looks, tmp_path / "looks.png")
    assert np.isfinite(drawn := imread(tmp_path / "looks.png")).all()
    assert drawn[..., :3].std() > 0.01


def test_a_look_is_titled_with_who_and_what():
    assert image().title == "sensor: wave ✓"
    assert clip(1, np.ones((1, 1))).title == "camera: punch ✗"
