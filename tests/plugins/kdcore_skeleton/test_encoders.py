"""Encoders: what must hold whatever the weights, and a brute-force oracle of each graph convolution."""

from __future__ import annotations

from typing import get_type_hints

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from kdcore_skeleton.encoders.agcn import AdaptiveConv, Agcn
from kdcore_skeleton.encoders.hcn import Hcn
from kdcore_skeleton.encoders.st_gcn import SpatialConv, StGcn
from kdcore_skeleton.encoders.two_stream import AgcnTwoStream
from kdcore_skeleton.layout import Layout
from kdcore_skeleton.layouts import LAYOUTS
from kdcore_skeleton.partition import partition

SMALL = {"layout": "utd-mhad-20", "width": 8, "depth": 3}
GRAPH_ENCODERS = [StGcn, Agcn, AgcnTwoStream]


def randomise(encoder: nn.Module) -> nn.Module:
    """Every parameter and statistic far from its initial value, so that no layer is close to doing nothing."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return encoder.double().eval()


@pytest.fixture
def skeletons() -> Tensor:
    return torch.randn(2, 3, 17, 20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_spatial_conv_by_brute_force():
    torch.manual_seed(0)
    x, adjacency = torch.randn(2, 3, 4, 5).double(), torch.randn(3, 5, 5).double()
    conv = SpatialConv(3, 6, 3).double()
    expected = torch.zeros(2, 6, 4, 5, dtype=torch.float64)
    for k in range(3):
        projected = torch.einsum("ncto,cd->ndto", x, conv.weight[k]) + conv.bias[k][None, :, None, None]
        for v in range(5):
            for w in range(5):
                expected[..., w] += adjacency[k, v, w] * projected[..., v]
    torch.testing.assert_close(conv(x, adjacency), expected)


def similarity_by_brute_force(conv: AdaptiveConv, x: Tensor) -> Tensor:
    batch, _, frames, joints = x.shape
    width, subsets = conv.width, len(conv.adjacency)
    weight, bias = conv.embed.weight, conv.embed.bias
    out = torch.zeros(batch, subsets, joints, joints, dtype=x.dtype)
    for n in range(batch):
        for k in range(subsets):
            theta, phi = slice(k * width, (k + 1) * width), slice((subsets + k) * width, (subsets + k + 1) * width)
            for w in range(joints):
                scores = []
                for v in range(joints):
                    a = [weight[theta] @ x[n, :, t, v] + bias[theta] for t in range(frames)]
                    b = [weight[phi] @ x[n, :, t, w] + bias[phi] for t in range(frames)]
                    scores.append(sum(p @ q for p, q in zip(a, b, strict=True)) / (width * frames))
                out[n, k, :, w] = torch.stack(scores).exp() / torch.stack(scores).exp().sum()
    return out


def test_adaptive_conv_by_brute_force():
    layout = Layout(("a", "b", "c", "d"), (("a", "b"), ("b", "c"), ("b", "d")), centre="a")
    conv = randomise(AdaptiveConv(3, 8, partition(layout.graph(), "agcn-spatial")))
    assert isinstance(conv, AdaptiveConv)
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    similar = similarity_by_brute_force(conv, x)
    torch.testing.assert_close(conv.similarity(x), similar)
    graph = conv.adjacency + conv.learnt + similar
    expected = sum(
        torch.einsum("nctv,nvw,cd->ndtw", x, graph[:, k], conv.weight[k]) + conv.bias[k][None, :, None, None] for k in range(3)
    )
    torch.testing.assert_close(conv(x), (conv.norm(expected) + conv.shortcut(x)).relu())


def test_similarities_to_one_joint_sum_to_one(skeletons):
    conv = randomise(AdaptiveConv(3, 8, torch.zeros(3, 20, 20)))
    assert isinstance(conv, AdaptiveConv)
    graph = conv.similarity(skeletons[..., 0])
    torch.testing.assert_close(graph.sum(dim=2), torch.ones(2, 3, 20, dtype=torch.float64))
    assert (graph.sum(dim=3) - 1).abs().max() > 0.01, "over the other axis they do not"


@pytest.mark.parametrize("encoder", GRAPH_ENCODERS)
def test_renaming_joints_changes_nothing(encoder, skeletons):
    """Permuted joints in a permuted layout, with per-joint parameters permuted, give the same logits."""
    order = torch.randperm(20, generator=torch.Generator().manual_seed(3))
    layout = LAYOUTS["utd-mhad-20"]
    shuffled = Layout(tuple(layout.joints[i] for i in order), layout.edges, layout.centre)
    original = randomise(encoder(5, (3, 17, 20, 2), **{**SMALL, "layout": layout}))
    renamed = encoder(5, (3, 17, 20, 2), **{**SMALL, "layout": shuffled}).double().eval()
    renamed.load_state_dict({name: permuted(name, value, order) for name, value in original.state_dict().items()})
    torch.testing.assert_close(renamed(skeletons[:, :, :, order]), original(skeletons))
    assert not torch.allclose(original(skeletons[:, :, :, order]), original(skeletons))


def permuted(name: str, value: Tensor, order: Tensor) -> Tensor:
    if value.shape[-2:] == (20, 20):
        return value[..., order, :][..., order]
    if "norm.bn" in name and value.dim():
        return value.unflatten(0, (-1, 20, 3))[:, order].flatten()
    return value


@pytest.mark.parametrize("encoder", [StGcn, Agcn])
def test_a_joint_hears_of_its_neighbours_alone(encoder):
    """In one ST-GCN block what a joint hears stops after one bone; the similarity graph of AGCN reaches further."""
    model = randomise(encoder(5, (3, 8, 20, 1), **{**SMALL, "depth": 1}))
    x = torch.randn(1, 3, 8, 20, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    block = model.blocks[0](model.norm(x))
    layout = LAYOUTS["utd-mhad-20"]
    (reach,) = torch.autograd.grad(block[..., layout.index("left-elbow")].sum(), x)
    heard = {layout.joints[v] for v in reach.abs().sum(dim=(0, 1, 2, 4)).nonzero().flatten()}
    neighbours = {"left-elbow", "left-shoulder", "left-wrist"}
    assert heard == (neighbours if encoder is StGcn else set(layout.joints))


@pytest.mark.parametrize("encoder", [StGcn, Agcn, Hcn])
def test_stages_one_after_the_other_are_the_encoder(encoder, skeletons):
    options = {"width": 8} if encoder is Hcn else SMALL
    model = randomise(encoder(5, (3, 17, 20, 2), **options, embedding=6))
    x = skeletons
    for stage in model.stages().values():
        x = stage(x)
    assert x.equal(model(skeletons))
    named = dict(model.named_modules())
    assert list(model.stages())[-4:] == ["fc0", "relu", "dropout", "fc"]
    assert all(named[name] is stage for name, stage in model.stages().items() if name in named)


@pytest.mark.parametrize("encoder", [*GRAPH_ENCODERS, Hcn])
@pytest.mark.parametrize("shape", [(3, 16, 20, 1), (6, 33, 20, 2), (1, 20, 20, 3)])
def test_any_channels_frames_persons(encoder, shape):
    model = encoder(4, shape, width=8) if encoder is Hcn else encoder(4, shape, **SMALL)
    logits = model(torch.randn(2, *shape))
    assert logits.shape == (2, 4)
    logits.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("encoder", [StGcn, Hcn])
def test_persons_may_change_places(encoder, skeletons):
    model = randomise(encoder(5, (3, 17, 20, 2), **({"width": 8} if encoder is Hcn else SMALL)))
    torch.testing.assert_close(model(skeletons.flip(-1)), model(skeletons))


@pytest.mark.parametrize("encoder", [*GRAPH_ENCODERS, Hcn])
def test_samples_do_not_see_one_another(encoder, skeletons):
    model = randomise(encoder(5, (3, 17, 20, 2), **({"width": 8} if encoder is Hcn else SMALL)))
    torch.testing.assert_close(model(skeletons)[1:], model(skeletons[1:]))


def test_embedding_stands_before_the_classifier():
    model = Agcn(5, (3, 16, 20, 1), **SMALL, embedding=12)
    assert model.fc0.out_features == model.fc.in_features == 12
    assert "fc0" not in dict(Agcn(5, (3, 16, 20, 1), **SMALL).named_modules())


def test_two_streams_are_summed(skeletons):
    model = randomise(AgcnTwoStream(5, (3, 17, 20, 2), **SMALL))
    layout = LAYOUTS["utd-mhad-20"]
    bones = torch.zeros_like(skeletons)
    for child, parent in layout.bones.tolist():
        bones[:, :, :, child] = skeletons[:, :, :, child] - skeletons[:, :, :, parent]
    torch.testing.assert_close(model(skeletons), model.joint(skeletons) + model.bone(bones))


@pytest.mark.parametrize("depth", [1, 2, 4, 10])
def test_depth(depth):
    model = StGcn(4, (3, 32, 20, 1), layout="utd-mhad-20", width=4, depth=depth)
    assert len(model.blocks) == depth
    assert model(torch.randn(2, 3, 32, 20, 1)).shape == (2, 4)


@pytest.mark.parametrize("encoder", GRAPH_ENCODERS)
def test_other_joints_are_refused(encoder):
    with pytest.raises(ValueError, match="25 joints"):
        encoder(4, (3, 32, 25, 1), layout="utd-mhad-20")


def test_hcn_refuses_a_window_too_short():
    with pytest.raises(ValueError, match="at least 16 frames"):
        Hcn(4, (3, 8, 20, 1))


def test_saved_weights_hold_no_graph():
    assert not [name for name in Agcn(4, (3, 16, 20, 1), **SMALL).state_dict() if "adjacency" in name]


@pytest.mark.parametrize("encoder", GRAPH_ENCODERS)
def test_learns_which_joint_moves(encoder):
    """Two classes that differ in nothing but the arm that moves."""
    torch.manual_seed(0)
    labels = torch.arange(16) % 2
    x = 0.1 * torch.randn(16, 3, 16, 20, 1)
    x[labels == 0, :, :, 4:8] += torch.linspace(0, 1, 16)[:, None, None]
    x[labels == 1, :, :, 8:12] += torch.linspace(0, 1, 16)[:, None, None]
    options = {} if encoder is not StGcn else {"dropout": 0.0}
    model = encoder(2, (3, 16, 20, 1), **SMALL, **options)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(25):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_an_untrained_hcn_tells_samples_apart():
    torch.manual_seed(0)
    network = Hcn(27, (3, 32, 20, 1), width=16, point_channels=16).eval()
    skeletons = torch.randn(1, 3, 1, 20, 1) + 0.3 * torch.randn(16, 3, 32, 20, 1)  # metres
    assert (
        network(skeletons).std(dim=0).mean() > 0.01
    )  # with PyTorch's own initialisation it is 0.0001, and learns next to nothing


@pytest.mark.parametrize("encoder", GRAPH_ENCODERS)
def test_an_even_kernel_is_refused(encoder):
    with pytest.raises(ValueError, match="a temporal kernel must be odd, not 4"):
        encoder(4, (3, 16, 20, 1), **SMALL, kernel=4)
    hint = get_type_hints(encoder.__init__, include_extras=True)["kernel"]
    assert TypeAdapter(hint).validate_python(5) == 5
    with pytest.raises(ValidationError, match="a temporal kernel must be odd, not 4"):
        TypeAdapter(hint).validate_python(4)
