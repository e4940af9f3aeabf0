"""Clip encoders: frames, TSN, TRN, TSM."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import timm
import torch
from torch import nn

from kdcore import DataError, Participant, PretrainedWeights
from kdcore.plugin import pretrained
from kdcore_video.encoders import Frames, TemporalShift, Trn, Tsm, Tsn

SHAPE = (4, 3, 32, 32)
SMALL = {"backbone": "test_resnet"}
TINY = {"backbone": "bn-inception", "width": 0.0625}


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("encoder", [Frames, Tsn, Trn, Tsm])
def test_logits_and_gradients(encoder):
    model = encoder(5, SHAPE, **SMALL).train()
    logits = model(torch.randn(2, *SHAPE))
    assert logits.shape == (2, 5)
    logits.pow(2).sum().backward()
    dead = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert dead == []


@pytest.mark.parametrize("encoder", [Frames, Tsn, Trn])
def test_on_bn_inception(encoder):
    model = encoder(5, SHAPE, **TINY).eval()
    x = torch.randn(2, *SHAPE)
    assert model(x).shape == (2, 5)
    torch.testing.assert_close(model(x), model(x))


@pytest.mark.parametrize("encoder", [Frames, Tsn, Trn, Tsm])
def test_clips_do_not_mix(encoder):
    model = encoder(5, SHAPE, **SMALL).double().eval()
    x = torch.randn(3, *SHAPE, dtype=torch.float64)
    torch.testing.assert_close(model(x)[1], model(x[1:2])[0])


@pytest.mark.parametrize(("encoder", "apart"), [(Frames, True), (Tsn, True), (Trn, True), (Tsm, False)])
def test_a_clip_of_one_frame_in_memory_is_answered_by_that_frame(encoder, apart):
    model = Participant("rgb", encoder(5, SHAPE, **SMALL), {"map": "mean.layer2", "features": "mean.features"}).double().eval()
    seen = []
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    still = torch.randn(2, 1, *SHAPE[1:], dtype=torch.float64).expand(-1, 4, -1, -1, -1)
    once, each = model(still), model(still.contiguous())
    assert seen == [2 if apart else 8, 8]
    for one, other in [(once.logits, each.logits), *((once.features[tap], each.features[tap]) for tap in once.features)]:
        torch.testing.assert_close(one, other)
    model.train()(still)
    assert seen[2:] == [8], "dropout and sampled relations are every frame's own"


@pytest.mark.parametrize("average", ["features", "logits"])
def test_frames_average_what_each_frame_says(average):
    model = Frames(5, SHAPE, average=average, embedding=7, **SMALL).double().eval()
    x = torch.randn(2, *SHAPE, dtype=torch.float64)
    alone = torch.stack([model.classifier(model.embedding(model.backbone(x[:, frame]))) for frame in range(4)])
    torch.testing.assert_close(model(x), alone.mean(0))


def test_averaged_probabilities():
    model = Frames(5, SHAPE, average="probabilities", **SMALL).double().eval()
    x = torch.randn(2, *SHAPE, dtype=torch.float64)
    alone = torch.stack([model.classifier(model.backbone(x[:, frame])).softmax(-1) for frame in range(4)])
    torch.testing.assert_close(model(x).softmax(-1), alone.mean(0))


def test_consensus_by_the_strongest_frame():
    model = Tsn(5, SHAPE, segment_consensus="max", **SMALL).double().eval()
    x = torch.randn(2, *SHAPE, dtype=torch.float64)
    alone = torch.stack([model.classifier(model.backbone(x[:, frame])) for frame in range(4)])
    torch.testing.assert_close(model(x), alone.max(0).values)


def test_order_matters_to_relations_and_shifts_only():
    x = torch.randn(2, *SHAPE, dtype=torch.float64)
    for encoder, blind in ((Frames, True), (Tsn, True), (Trn, False), (Tsm, False)):
        model = encoder(5, SHAPE, **SMALL).double().eval()
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):  # timm lets residual branches start at zero
                nn.init.ones_(norm.weight)
        assert torch.allclose(model(x), model(x.flip(1))) is blind, encoder


@pytest.mark.parametrize("options", [SMALL, TINY])
def test_taps_give_one_row_per_clip(options):
    model = Trn(5, SHAPE, embedding=11, **options).double()
    last = "layer4" if options is SMALL else "inception_5b"
    taps = {"map": f"mean.{last}", "fc1": "mean.features", "frames": f"backbone.{last}"}
    x = torch.randn(2, *SHAPE, dtype=torch.float64)
    outputs = Participant("student", model, taps).eval()(x)
    assert outputs.features["fc1"].shape == (2, 11)
    per_frame = outputs.features["frames"]
    assert per_frame.shape[0] == 8
    torch.testing.assert_close(outputs.features["map"], torch.stack([per_frame[:4].mean(0), per_frame[4:].mean(0)]))


def test_a_transformer_as_backbone():
    model = Frames(5, (2, 3, 160, 160), backbone="test_vit").eval()
    assert "blocks_0" in model.mean
    assert model(torch.randn(1, 2, 3, 160, 160)).shape == (1, 5)


def test_partial_bn_freezes_all_but_the_first():
    model = Tsn(5, SHAPE, partial_bn=True, **TINY).train()
    norms = [module for module in model.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms]
    model(torch.randn(2, *SHAPE)).sum().backward()
    changed = [not torch.equal(norm.running_mean, old) for norm, old in zip(norms, before, strict=True)]
    assert changed == [True] + [False] * (len(norms) - 1)
    assert norms[0].weight.grad is not None
    assert all(norm.weight.grad is None for norm in norms[1:])
    assert not any(module.training for module in model.eval().modules())


def test_shift_exchanges_channels_between_neighbours():
    x = torch.randn(2, 4, 8, 3, 3)
    out = TemporalShift(nn.Identity(), frames=4, fraction=4)(x.flatten(0, 1)).unflatten(0, (2, 4))
    zero = torch.zeros(8, 3, 3)
    for clip in range(2):
        for t in range(4):
            after = x[clip, t + 1] if t < 3 else zero
            before = x[clip, t - 1] if t > 0 else zero
            assert torch.equal(out[clip, t, :2], after[:2])
            assert torch.equal(out[clip, t, 2:4], before[2:4])
            assert torch.equal(out[clip, t, 4:], x[clip, t, 4:])


def test_every_residual_block_is_shifted():
    model = Tsm(5, SHAPE, backbone="resnet18")
    assert sum(isinstance(module, TemporalShift) for module in model.modules()) == 8
    with pytest.raises(ValueError, match="residual blocks"):
        Tsm(5, SHAPE, backbone="test_efficientnet")


@pytest.mark.parametrize("encoder", [Frames, Tsn, Tsm])
def test_an_embedding_stands_between_features_and_classifier(encoder):
    model = encoder(5, SHAPE, **SMALL, embedding=7).eval()
    seen = []
    model.mean["features"].register_forward_hook(lambda _, __, output: seen.append(output))
    logits = model(torch.randn(2, *SHAPE))
    assert seen[0].shape == (2, 7)
    torch.testing.assert_close(logits, model.classifier(seen[0]))


def test_weights_from_a_file(tmp_path):
    source = timm.create_model("test_resnet")
    path = tmp_path / "weights.pt"
    torch.save(source.state_dict(), path)
    model = Trn(5, SHAPE, weights=path, **SMALL)
    assert torch.equal(model.backbone.get_parameter("layer4.0.conv1.weight"), source.get_parameter("layer4.0.conv1.weight"))
    depth = Trn(5, (4, 1, 32, 32), weights=path, **SMALL)
    first = next(name for name, module in source.named_modules() if isinstance(module, nn.Conv2d)) + ".weight"
    torch.testing.assert_close(depth.backbone.get_parameter(first), source.get_parameter(first).sum(1, keepdim=True))


@pytest.mark.parametrize("channels", [1, 3])
def test_weights_from_a_package(channels, monkeypatch):
    source = timm.create_model("test_resnet", num_classes=1000)
    found = PretrainedWeights("an extra", "a package 1.0", "MIT", source.state_dict)

    class Hook:
        def pretrained_weights(self, model):
            return found if model == "test_resnet" else None

    monkeypatch.setattr(pretrained, "plugin_manager", lambda: SimpleNamespace(hook=Hook()))
    model = Trn(5, (4, channels, 32, 32), pretrained=True, **SMALL)
    assert torch.equal(model.backbone.get_parameter("layer4.0.conv1.weight"), source.get_parameter("layer4.0.conv1.weight"))
    first = next(name for name, module in source.named_modules() if isinstance(module, nn.Conv2d)) + ".weight"
    expected = source.get_parameter(first) if channels == 3 else source.get_parameter(first).sum(1, keepdim=True)
    torch.testing.assert_close(model.backbone.get_parameter(first), expected)
    assert model.notes == ("the backbone starts from the weights of test_resnet in a package 1.0, licence MIT",)
    found = PretrainedWeights("kdcore[some]")

    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(DataError, match=r"install kdcore\[some\], or download them"):
        Trn(5, SHAPE, pretrained=True, **SMALL)


def test_what_cannot_be_had_is_said(monkeypatch):
    with pytest.raises(DataError, match="'resnet1': neither"):
        Tsn(5, SHAPE, backbone="resnet1")
    with pytest.raises(DataError, match="not downloaded"):
        Tsn(5, SHAPE, pretrained=True, **TINY)
    with pytest.raises(ValueError, match="option of bn-inception"):
        Tsn(5, SHAPE, backbone="test_resnet", width=0.5)
    with pytest.raises(ValueError, match="frames, channels"):
        Tsn(5, (3, 32, 32), **SMALL)

    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(DataError, match="cannot be downloaded"):
        Tsn(5, SHAPE, pretrained=True, **SMALL)
