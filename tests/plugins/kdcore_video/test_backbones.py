"""BN-Inception."""

from __future__ import annotations

import re

import pytest
import torch
from safetensors.torch import save_file

from kdcore import DataError
from kdcore_video.backbones import BnInception, Halve, load_published, published_name

PUBLISHED_CHANNELS = [64, 192, 256, 320, 576, 576, 576, 608, 608, 1056, 1024, 1024]


def test_published_number_of_parameters_and_map_sizes():
    with torch.device("meta"):
        backbone = BnInception().eval()
        features, maps = backbone.forward_intermediates(torch.zeros(1, 3, 224, 224))
    classifier = 1024 * 1000 + 1000
    assert sum(parameter.numel() for parameter in backbone.parameters()) + classifier == 11_295_240
    assert [each.shape[1] for each in maps] == PUBLISHED_CHANNELS
    assert [each.shape[-1] for each in maps] == [112, 56, 28, 28, 14, 14, 14, 14, 14, 7, 7, 7]
    assert features.shape == (1, 1024, 7, 7)


@pytest.mark.parametrize("size", [30, 32, 40, 56, 112])
def test_other_sizes_and_widths(size):
    backbone = BnInception(5, width=0.0625).eval()
    assert backbone(torch.rand(2, 5, size, size)).shape == (2, backbone.num_features)


def test_halving_matches_the_published_pooling_on_even_maps():
    x = torch.rand(2, 3, 28, 28)
    expected = torch.nn.functional.max_pool2d(x, 3, 2, ceil_mode=True)
    assert torch.equal(Halve()(x), expected)


def test_names_are_the_published_ones():
    names = {published_name(name) for name in BnInception(width=0.0625).state_dict()}
    for known in (
        "conv1_7x7_s2.weight",
        "conv1_7x7_s2_bn.running_mean",
        "conv2_3x3_reduce.bias",
        "inception_3a_1x1.weight",
        "inception_3a_pool_proj_bn.weight",
        "inception_3c_double_3x3_2.weight",
        "inception_4e_3x3.weight",
        "inception_5b_double_3x3_reduce_bn.running_var",
    ):
        assert known in names
    assert not any(re.search(r"inception_(3c|4e)_(1x1|pool_proj)", name) for name in names)


def test_published_weights_are_loaded_with_their_colours_turned_round(tmp_path):
    torch.manual_seed(0)
    source = BnInception(3, width=0.0625)
    state = {published_name(name): value for name, value in source.state_dict().items() if "num_batches" not in name}
    state["conv1_7x7_s2_bn.running_mean"] = state["conv1_7x7_s2_bn.running_mean"].view(1, -1)
    path = tmp_path / "bn-inception.safetensors"
    save_file({**state, "last_linear.weight": torch.zeros(10, 64)}, path)
    loaded = BnInception(3, width=0.0625)
    load_published(loaded, path)
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(loaded.eval()(x), source.eval()(x.flip(1)))


def test_own_weights_are_loaded_as_they_are(tmp_path):
    source = BnInception(3, width=0.0625)
    path = tmp_path / "own.pt"
    torch.save(source.state_dict(), path)
    loaded = BnInception(3, width=0.0625)
    load_published(loaded, path)
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded.eval()(x), source.eval()(x))


def test_weights_that_do_not_fit_are_named(tmp_path):
    path = tmp_path / "narrow.pt"
    torch.save(BnInception(3, width=0.03).state_dict(), path)
    with pytest.raises(DataError, match=r"narrow\.pt: does not fit"):
        load_published(BnInception(3, width=0.0625), path)
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read"):
        load_published(BnInception(3, width=0.0625), path)
