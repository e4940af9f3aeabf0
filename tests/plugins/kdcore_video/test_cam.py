"""Class activation maps."""

from __future__ import annotations

import numpy as np
import torch

from kdcore_video.cam import class_activation, overlay


def test_equals_the_definition():
    generator = torch.Generator().manual_seed(0)
    features, weights = torch.rand(2, 5, 4, 6, generator=generator), torch.randn(2, 5, generator=generator)
    ours = class_activation(features, weights)
    for sample in range(2):
        expected = np.maximum(sum(float(weights[sample, c]) * features[sample, c].numpy() for c in range(5)), 0)
        np.testing.assert_allclose(ours[sample], expected / expected.max(), rtol=1e-5)


def test_a_map_that_speaks_against_it_is_zero():
    assert torch.equal(class_activation(torch.rand(3, 4, 4), -torch.ones(3)), torch.zeros(4, 4))


def test_overlay_shows_the_place():
    features = torch.zeros(2, 8, 8)
    features[0, 1, 6] = 3.0
    picture = np.full((64, 64, 3), 100, np.uint8)
    before = picture.copy()
    shown = overlay(picture, class_activation(features, torch.tensor([1.0, 1.0])))
    assert shown.shape == (64, 64, 3)
    assert shown.dtype == np.uint8
    assert np.array_equal(picture, before)
    redness = shown[..., 0].astype(int) - shown[..., 2]
    top, left = np.unravel_index(redness.argmax(), redness.shape)
    assert (top // 8, left // 8) == (1, 6)
    assert redness[40, 8] < 0
    assert np.array_equal(overlay(picture, torch.ones(8, 8), strength=0.0), picture)


def test_overlay_on_a_grey_picture():
    assert overlay(np.zeros((10, 12, 1), np.uint8), torch.rand(3, 3)).shape == (10, 12, 3)
