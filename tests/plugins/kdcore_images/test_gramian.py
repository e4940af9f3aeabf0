"""The Gramian angular field against published numbers, trigonometry and its own symmetries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kdcore_images.gramian import GramianAngularField

SERIES = ("walk60", "sine60", "step20", "mono16", "len2", "len3", "len180", "big1e6", "tiny", "tri50")
FINITE = st.floats(-1e3, 1e3, width=32)


def field(x, **options):
    x = torch.as_tensor(x)
    return GramianAngularField(**{"size": None, **options})(x.reshape(1, -1, x.shape[-1]))[0].numpy()


@pytest.mark.parametrize("name", SERIES)
@pytest.mark.parametrize("method", ["gasf", "gadf"])
def test_equals_pyts(golden, name, method):
    numbers = golden("a_gaf")
    expected = numbers[f"{name}.{method}_pyts"]
    np.testing.assert_allclose(
        field(numbers[f"{name}.x"], method=method), expected.reshape(-1, *expected.shape[-2:]), atol=1e-7
    )


@pytest.mark.parametrize("name", [name for name in SERIES if name not in ("len180", "tri50")])
@pytest.mark.parametrize("method", ["gasf", "gadf"])
def test_official_variant_equals_the_published_code(golden, name, method):
    numbers = golden("a_gaf")
    ours = field(numbers[f"{name}.x"], method=method, variant="official")[0]
    np.testing.assert_allclose(ours, numbers[f"{name}.{method}_sakdn"], atol=1e-7)


@pytest.mark.parametrize("method", ["gasf", "gadf"])
def test_unit_images_equal_the_published_ones(golden, method):
    numbers = golden("a_gaf")
    ours = field(numbers["tri50.x"], method=method, variant="official", values="unit")
    np.testing.assert_allclose(ours.transpose(1, 2, 0), numbers[f"tri50.{method}_sakdn_mat2gray_hwc"], atol=1e-7)


def test_joint_scale(golden):
    numbers = golden("a_gaf")
    np.testing.assert_allclose(field(numbers["tri50.x"], scale="joint"), numbers["tri50.gasf_jointscale"], atol=1e-7)


def test_resizing_the_series_is_piecewise_averaging(golden):
    numbers = golden("a_gaf")
    ours = field(numbers["len180.x"], size=60, resize="series")[0]
    np.testing.assert_allclose(ours, numbers["len180.gasf_pyts_paa60"], atol=1e-7)


def test_constant_axis_is_finite_and_as_documented(golden):
    x = golden("a_gaf")["const8.x"]
    assert np.array_equal(field(x)[0], np.ones((8, 8)))
    assert np.array_equal(field(x, method="gadf")[0], np.zeros((8, 8)))


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.float64, st.tuples(st.just(2), st.integers(2, 12)), elements=FINITE))
def test_equals_trigonometry(x):
    span = np.ptp(x, axis=1, keepdims=True)
    if (span < 1e-3).any():
        return
    angle = np.arccos(np.clip((2 * x - x.max(1, keepdims=True) - x.min(1, keepdims=True)) / span, -1, 1))
    np.testing.assert_allclose(field(x), np.cos(angle[:, :, None] + angle[:, None, :]), atol=1e-6)
    np.testing.assert_allclose(field(x, method="gadf"), np.sin(angle[:, :, None] - angle[:, None, :]), atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.float32, (3, 9), elements=FINITE), st.floats(0.5, 20, width=32), st.sampled_from(["gasf", "gadf"]))
def test_finite_bounded_and_blind_to_units(x, factor, method):
    ours = field(x, method=method)
    assert np.isfinite(ours).all()
    assert np.abs(ours).max() <= 1 + 1e-6
    assert np.allclose(ours, ours.transpose(0, 2, 1) * (1 if method == "gasf" else -1), atol=1e-6)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(field(exact * factor, method=method), field(exact, method=method), atol=1e-6)


def test_each_sample_is_scaled_on_its_own():
    x = torch.randn(4, 3, 30, generator=torch.Generator().manual_seed(0))
    gaf = GramianAngularField(size=16)
    together = gaf(x * torch.tensor([1.0, 10.0, 0.1, 5.0]).view(4, 1, 1))
    assert together.shape == (4, 3, 16, 16)
    for row in range(4):
        torch.testing.assert_close(together[row], gaf(x[row : row + 1])[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("resize", ["image", "series"])
@pytest.mark.parametrize("length", [7, 16, 50])
def test_sizes(resize, length):
    assert GramianAngularField(size=16, resize=resize)(torch.randn(2, 3, length)).shape == (2, 3, 16, 16)


def test_a_fine_pattern_is_averaged_when_it_shrinks():
    x = torch.tensor([0.0, 1.0]).repeat(64).view(1, 1, 128)
    shrunk = GramianAngularField(size=8)(x)
    assert shrunk.abs().max() < 0.1  # the field alternates between +1 and -1


def test_both_fields_are_the_sums_then_the_differences(golden):
    x = golden("a_gaf")["tri50.x"]
    for variant in ("paper", "official"):
        apart = [field(x, method=method, variant=variant) for method in ("gasf", "gadf")]
        assert np.array_equal(field(x, method="both", variant=variant), np.concatenate(apart))


@pytest.mark.parametrize("method", ["gasf", "gadf", "both"])
@pytest.mark.parametrize("variant", ["paper", "official"])
def test_fields_made_sample_by_sample_equal_those_of_the_whole_batch_to_the_bit(method, variant):
    gaf = GramianAngularField(size=7, method=method, variant=variant, resize="series")
    x = torch.randn(3, 2, 11)
    assert torch.equal(gaf(x), gaf(x.clone().requires_grad_()).detach())
