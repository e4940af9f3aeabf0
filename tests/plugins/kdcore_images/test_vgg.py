"""VGG16 with batch normalisation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kdcore_images.vgg import Vgg16Bn


def test_convolutions_have_the_published_number_of_parameters():
    with torch.device("meta"):
        vgg = Vgg16Bn(27, (3, 224, 224))
    blocks = [parameter for name, parameter in vgg.named_parameters() if name.startswith("block")]
    assert sum(parameter.numel() for parameter in blocks) == 14_723_136
    convolutions = [module for module in vgg.modules() if isinstance(module, nn.Conv2d)]
    assert sum(p.numel() for module in convolutions for p in module.parameters()) == 14_714_688
    assert len(convolutions) == 13


def test_fully_connected_layers():
    with torch.device("meta"):
        vgg = Vgg16Bn(27, (3, 224, 224))
    shapes = [(module.in_features, module.out_features) for module in vgg.modules() if isinstance(module, nn.Linear)]
    assert shapes == [(512 * 49, 300), (300, 300), (300, 27)]


@pytest.mark.parametrize("size", [32, 48])
def test_stages_and_shapes(size):
    vgg = Vgg16Bn(5, (6, size, size), width=0.0625, hidden=12, pool=1).eval()
    x = torch.randn(2, 6, size, size)
    logits, seen = x, {}
    for name, stage in vgg.stages().items():
        seen[name] = logits = stage(logits)
    assert list(seen) == ["block1", "block2", "block3", "block4", "block5", "fc1", "fc2", "classifier"]
    assert [seen[f"block{k}"].shape[-1] for k in range(1, 6)] == [size, size // 2, size // 4, size // 8, size // 16]
    assert seen["fc1"].shape == seen["fc2"].shape == (2, 12)
    assert seen["fc1"].min() >= 0 > seen["fc2"].min()
    torch.testing.assert_close(logits, vgg(x))


def test_small_images_are_refused():
    with pytest.raises(ValueError, match="32 x 32"):
        Vgg16Bn(5, (3, 20, 20))


def test_one_step_lowers_the_loss():
    torch.manual_seed(0)
    vgg = Vgg16Bn(3, (3, 32, 32), width=0.0625, hidden=16, pool=1, drop_rate=0.0)
    x, labels = torch.randn(6, 3, 32, 32), torch.arange(6) % 3
    optimizer = torch.optim.Adam(vgg.parameters(), 1e-2)
    losses = []
    for _ in range(8):
        loss = nn.functional.cross_entropy(vgg(x), labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]
