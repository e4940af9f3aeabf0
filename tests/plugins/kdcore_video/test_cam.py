"""Class activation maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from kdcore_video.cam import class_activation, hires_cam
from kdcore_video.encoders import Trn, Tsm, Tsn


def test_equals_the_definition():
    generator = torch.Generator().manual_seed(0)
    features, weights = torch.rand(2, 5, 4, 6, generator=generator), torch.randn(2, 5, generator=generator)
    ours = class_activation(features, weights)
    for sample in range(2):
        expected = np.maximum(sum(float(weights[sample, c]) * features[sample, c].numpy() for c in range(5)), 0)
        np.testing.assert_allclose(ours[sample], expected / expected.max(), rtol=1e-5)


def test_a_map_that_speaks_against_it_is_zero():
    assert torch.equal(class_activation(torch.rand(3, 4, 4), -torch.ones(3)), torch.zeros(4, 4))


class Corner(nn.Module):
    """Brightness of the top left corner speaks for class 0, that of all the rest for class 1; in clips, of the frame `only`."""

    def __init__(self, only=None):
        super().__init__()
        self.local = nn.Conv2d(1, 3, 3, padding=1, bias=False)
        nn.init.constant_(self.local.weight, 1.0)
        self.only = only

    def forward(self, x):
        maps = self.local(x.flatten(0, -4)).relu()
        score = maps[:, :, :4, :4].sum((1, 2, 3))
        rest = maps.sum((1, 2, 3)) - score
        scores = torch.stack([score, rest], 1)
        return scores if self.only is None else scores.unflatten(0, x.shape[:2])[:, self.only]


def test_a_network_that_reads_a_corner_lights_the_corner():
    inputs = 0.1 + torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    for said in (0, 1):
        found = hires_cam(net := Corner(), inputs, lambda x, said=said: net(x)[1, said])
        corner = torch.zeros(16, 16, dtype=torch.bool)
        corner[:4, :4] = True
        assert found.shape == (2, 16, 16)
        assert torch.equal(found[1] > 0, corner if said == 0 else ~corner)
        assert not found[0].any()  # the other sample was not asked about


def test_in_a_clip_the_frame_that_was_read_is_lit():
    found = hires_cam(net := Corner(only=2), torch.ones(1, 4, 1, 16, 16), lambda x: net(x)[0, 0])
    assert found.shape == (1, 4, 16, 16)
    assert found.amax((0, 2, 3)).gt(0).tolist() == [False, False, True, False]


def test_before_a_global_mean_it_is_the_class_activation_map():
    torch.manual_seed(0)
    body, classifier = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU()), nn.Linear(5, 4)
    net = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), classifier)
    x = torch.randn(1, 3, 12, 12)
    found = hires_cam(net, x, lambda x: net(x)[0, 2])
    expected = class_activation(body(x), classifier.weight[2][None])
    torch.testing.assert_close(found / found.max(), expected)


@pytest.mark.parametrize("encoder", [Tsn, Trn, Tsm])
def test_clip_encoders_tell_of_every_frame(encoder):
    torch.manual_seed(0)
    net = encoder(3, (4, 3, 64, 64), backbone="resnet18" if encoder is Tsm else "test_resnet").eval()
    clips = torch.randn(2, 4, 3, 64, 64)
    speaks, against = (hires_cam(net, clips, lambda x, sign=sign: sign * net(x)[0].max()) for sign in (1, -1))
    found = speaks + against  # whatever the untrained network says, some place speaks for it or against it
    assert found.shape[:2] == (2, 4)
    assert min(found.shape[2:]) >= 6
    assert found[0].amax() > 0
    assert not found[1].any()


@pytest.mark.parametrize(
    "model", ["vgg11_bn", "mobilenetv3_small_050", "convnext_atto", "test_vit", "swin_tiny_patch4_window7_224"]
)
def test_any_timm_model_is_asked_without_harm(model):
    import timm

    torch.manual_seed(0)
    size = {"test_vit": 160, "swin_tiny_patch4_window7_224": 224}.get(model, 64)
    net = timm.create_model(model, num_classes=3).eval()
    found = hires_cam(net, torch.randn(1, 3, size, size), lambda x: net(x)[0].max())
    assert found is not None
    assert found.dim() == 3
    assert found.shape[1] == found.shape[2]


class Residual(nn.Module):
    """A side branch that changes nothing, beside what does."""

    def __init__(self):
        super().__init__()
        self.side = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.zeros_(self.side.weight)

    def forward(self, x):
        return nn.functional.max_pool2d(x + 0 * self.side(x), 4)


def test_a_branch_that_is_bypassed_is_not_taken_for_the_whole():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 1), Residual(), nn.Flatten(), nn.Linear(4, 2))
    nn.init.constant_(net[2].bias, 3.0)
    nn.init.ones_(net[5].weight)
    found = hires_cam(net, torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)), lambda x: net(x)[0, 0])
    assert found.shape == (1, 8, 8)
    assert int((found > 0).sum()) == 4  # the greatest of every 4 x 4


def test_a_network_without_maps_has_none():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    assert hires_cam(net, torch.randn(1, 1, 8, 8), lambda x: net(x)[0, 0]) is None


def test_nothing_of_the_encoder_is_changed():
    net = Corner()
    hires_cam(net, torch.ones(1, 1, 16, 16), lambda x: net(x)[0, 0])
    assert net.local.weight.grad is None
    assert not net.local._forward_hooks
