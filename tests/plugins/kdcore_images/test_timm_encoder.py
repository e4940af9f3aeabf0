"""timm backbones as encoders."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file

from kdcore import DataError
from kdcore_images.timm_encoder import TimmEncoder

SHAPE = (3, 32, 32)


def composed(encoder, x):
    for stage in encoder.stages().values():
        x = stage(x)
    return x


@pytest.mark.parametrize("model", ["test_resnet", "mobilenetv3_small_050", "test_convnext", "test_efficientnet"])
@pytest.mark.parametrize("embedding", [None, 10])
def test_stages_give_the_same_logits(model, embedding):
    encoder = TimmEncoder(5, SHAPE, model=model, embedding=embedding, drop_rate=0.3).eval()
    x = torch.randn(2, *SHAPE)
    assert encoder(x).shape == (2, 5)
    torch.testing.assert_close(composed(encoder, x), encoder(x))


def test_stages_of_a_resnet_are_named_as_its_modules():
    assert list(TimmEncoder(5, SHAPE, model="test_resnet", embedding=4).stages()) == [
        "act1", "layer1", "layer2", "layer3", "layer4", "head", "embedding", "classifier"
    ]  # fmt: skip


def test_a_transformer_cannot_be_cut():
    encoder = TimmEncoder(5, SHAPE, model="test_vit", arguments={"img_size": 32})
    assert encoder(torch.randn(2, *SHAPE)).shape == (2, 5)
    with pytest.raises(NotImplementedError, match="cut into stages"):
        encoder.stages()


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_weights_from_a_file(tmp_path, suffix):
    source = timm.create_model("test_resnet", num_classes=1000)
    path = tmp_path / f"weights.{suffix}"
    save_file(source.state_dict(), path) if suffix == "safetensors" else torch.save(source.state_dict(), path)
    encoder = TimmEncoder(5, SHAPE, model="test_resnet", weights=path)
    assert torch.equal(encoder.backbone.get_parameter("layer4.0.conv1.weight"), source.get_parameter("layer4.0.conv1.weight"))
    one_channel = TimmEncoder(5, (1, 32, 32), model="test_resnet", weights=path)
    first = next(name for name, module in source.named_modules() if isinstance(module, torch.nn.Conv2d)) + ".weight"
    expected = source.get_parameter(first).sum(1, keepdim=True)
    torch.testing.assert_close(one_channel.backbone.get_parameter(first), expected)


def test_weights_that_do_not_fit_are_named(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"nothing": torch.zeros(1)}, path)
    with pytest.raises(DataError, match=r"other\.safetensors.*test_resnet"):
        TimmEncoder(5, SHAPE, model="test_resnet", weights=path)
    with pytest.raises(DataError, match="no such file"):
        TimmEncoder(5, SHAPE, model="test_resnet", weights=tmp_path / "missing.pt")


def test_a_file_with_code_is_refused(tmp_path):
    path = tmp_path / "whole-model.pt"
    torch.save(timm.create_model("test_resnet"), path)
    with pytest.raises(DataError, match=r"whole-model\.pt"):
        TimmEncoder(5, SHAPE, model="test_resnet", weights=path)


def test_pretrained_without_a_network_says_what_to_do(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(DataError, match=r"cannot be downloaded.*`weights`"):
        TimmEncoder(5, SHAPE, model="resnet18", pretrained=True)


def test_an_unknown_model_is_named_with_near_ones():
    with pytest.raises(DataError, match=r"'test_resne'; it has .*test_resnet"):
        TimmEncoder(5, SHAPE, model="test_resne")


def test_clips_are_refused():
    with pytest.raises(ValueError, match="channels, height, width"):
        TimmEncoder(5, (8, 3, 32, 32))
