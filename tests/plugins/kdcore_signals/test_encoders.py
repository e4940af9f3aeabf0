"""Encoders for wearable sensors: shapes, stages, sizes, and that they learn."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcore import Participant
from kdcore_signals.encoders import Cnn1d, Cnn2d, LateFusionCnn1d, Lstm

SERIES, IMAGE = (3, 50), (3, 24, 24)
CASES = [
    (Cnn1d, SERIES, {}),
    (Cnn1d, SERIES, {"embedding": 300, "norm": "group", "depth": 2, "width": 16, "kernel": 9, "dropout": 0.0}),
    (Cnn1d, (6, 326), {"norm": "none"}),
    (LateFusionCnn1d, (9, 40), {"groups": (6, 3), "width": 8, "branch_dropout": 0.0}),
    (
        LateFusionCnn1d,
        SERIES,
        {"groups": (3,), "depth": 2, "norm": "group", "width": 8, "embedding": 6, "branch_dropout": 0},
    ),
    (Cnn2d, IMAGE, {}),
    (Cnn2d, IMAGE, {"embedding": 64}),
    (Lstm, SERIES, {}),
    (Lstm, SERIES, {"bidirectional": True, "summary": "mean", "embedding": 64, "depth": 1}),
    (Lstm, SERIES, {"bidirectional": True}),
]
every_one = pytest.mark.parametrize(("kind", "shape", "options"), CASES)


@every_one
def test_stages_in_a_row_are_the_encoder(kind, shape, options):
    torch.manual_seed(0)
    encoder = kind(5, shape, **options).eval()
    x = torch.randn(4, *shape)
    wanted = encoder(x)
    assert wanted.shape == (4, 5)
    for name, stage in encoder.stages().items():
        x = stage(x)
        assert encoder.get_submodule(name) is stage
    torch.testing.assert_close(x, wanted, rtol=0, atol=0)


@every_one
def test_every_parameter_learns(kind, shape, options):
    torch.manual_seed(0)
    encoder = kind(5, shape, **options)
    torch.nn.functional.cross_entropy(encoder(torch.randn(8, *shape)), torch.arange(8) % 5).backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", [Cnn1d, Lstm])
def test_a_watch_can_hold_it(kind):
    encoder = kind(27, (6, 128), embedding=128)
    assert sum(parameter.numel() for parameter in encoder.parameters()) <= 300_000


@pytest.mark.parametrize("kind", [Cnn1d, Lstm])
@given(length=st.integers(1, 70), channels=st.integers(1, 7))
@settings(max_examples=15, deadline=None)
def test_windows_of_any_length(kind, length, channels):
    encoder = kind(4, (channels, length)).eval()
    assert encoder(torch.randn(2, channels, length)).isfinite().all()


@pytest.mark.parametrize(("kind", "shape"), [(Cnn1d, IMAGE), (Cnn2d, SERIES), (Lstm, IMAGE)])
def test_inputs_of_another_kind_are_refused(kind, shape):
    with pytest.raises(ValueError, match=r"reads .* not a tensor of shape"):
        kind(4, shape)


@pytest.mark.parametrize(
    ("kind", "shape", "first"), [(Cnn1d, SERIES, (2, 32, 25)), (Cnn2d, IMAGE, (2, 32, 12, 12)), (Lstm, SERIES, (2, 128, 50))]
)
def test_taps_are_tensors(kind, shape, first):
    taps = {"map": "blocks.0", "vector": "pool", "embedding": "fc0"}
    outputs = Participant("student", kind(4, shape, embedding=9), taps)(torch.randn(2, *shape))
    assert outputs.features["map"].shape == first
    assert outputs.features["vector"].shape == (2, 128)
    assert outputs.features["embedding"].shape == (2, 9)
    assert (outputs.features["embedding"] < 0).any()


def test_group_normalisation_does_not_look_at_the_rest_of_the_batch():
    encoder = Cnn1d(4, SERIES, norm="group", dropout=0.0)
    x = torch.randn(5, *SERIES)
    torch.testing.assert_close(encoder(x)[:1], encoder(x[:1]))


@pytest.mark.parametrize("kind", [Cnn1d, Lstm])
def test_it_tells_frequencies_apart(kind):
    torch.manual_seed(0)
    labels = torch.arange(48) % 3
    phase, time = 6.28 * torch.rand(48, 3, 1), torch.arange(50.0)
    x = torch.sin((0.2 + 0.3 * labels[:, None, None]) * time + phase)
    encoder = kind(3, SERIES, dropout=0.0)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(encoder(x), labels).backward()
        optimizer.step()
    encoder.eval()
    assert (encoder(x).argmax(dim=1) == labels).float().mean() > 0.9


def test_late_fusion_is_a_network_for_each_group_of_channels():
    torch.manual_seed(0)
    encoder = LateFusionCnn1d(5, (5, 30), groups=(3, 2), width=8, depth=2).eval()
    x = torch.randn(4, 5, 30)
    alone = [trunk(part) for trunk, part in zip(encoder.branches.trunks, (x[:, :3], x[:, 3:]), strict=True)]
    expected = torch.cat(alone, dim=1) @ encoder.fc.weight.T + encoder.fc.bias
    torch.testing.assert_close(encoder(x), expected)
    other = torch.cat([x[:, :3], torch.randn(4, 2, 30)], dim=1)
    torch.testing.assert_close(encoder.branches(other)[:, :16], encoder.branches(x)[:, :16], rtol=0, atol=0)


def test_branches_are_dropped_whole_and_their_mean_stays():
    torch.manual_seed(0)
    encoder = LateFusionCnn1d(5, (4, 30), groups=(3, 1), width=8, depth=1, norm="none", branch_dropout=0.25)
    x = torch.randn(1, 4, 30).expand(4000, -1, -1)
    whole = encoder.eval().branches(x)[:1].unflatten(1, (2, 8))
    kept = encoder.train().branches(x).unflatten(1, (2, 8)) / whole.where(whole != 0, torch.inf)
    per_branch = kept.amax(dim=2)
    assert torch.allclose(kept, (whole != 0) * per_branch[..., None], atol=1e-5)
    assert set(per_branch.flatten().mul(1000).round().int().tolist()) == {0, 1333}
    assert per_branch.gt(0).float().mean(dim=0).sub(0.75).abs().max() < 0.03  # 4 standard errors


def test_groups_must_be_all_channels():
    with pytest.raises(ValueError, match=r"groups \[3, 2\] sum to 5, but the input has 6 channels"):
        LateFusionCnn1d(5, (6, 30), groups=(3, 2))
