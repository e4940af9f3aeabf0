"""The fusion module of one layer, against golden numbers of the paper's equations and of the published code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdcore.functional import gram_similarities
from kdcore_spamfm.spamfm import Spamfm, pooled

OFFICIAL = {"con": "", "sum": "_add", "had": "_mul"}


def hashed(n, k):
    """The deterministic numbers in [-1, 1) that the reference's weights were filled with."""
    i, mask = np.arange(n, dtype=np.uint64), np.uint64(0xFFFFFFFF)
    h = (i * np.uint64(2654435761) + np.uint64((k + 1) * 40503)) & mask
    h = h ^ (h >> np.uint64(15))
    h = (h * np.uint64(2246822519)) & mask
    h = h ^ (h >> np.uint64(13))
    h = (h * np.uint64(3266489917)) & mask
    h = h ^ (h >> np.uint64(16))
    return h.astype(np.float64) / 2.0**31 - 1.0


def filled(shape, k, gain=6.0):
    u = hashed(math.prod(shape), k).reshape(shape)
    return torch.tensor(u * math.sqrt(gain / math.prod(shape[1:])) if len(shape) > 1 else 0.05 * u)


@pytest.fixture
def values(golden):
    return {key: torch.tensor(value) for key, value in golden("e_spamfm").items() if value.dtype.kind == "f"}


@pytest.mark.parametrize(("case", "channels"), [("paper_2mod_4d_b4c8", 8), ("paper_2mod_2d_b4c12", 12)])
def test_paper_form_follows_the_golden_numbers(values, case, channels):
    module = Spamfm((channels, channels)).double()
    state = {}
    for relation in OFFICIAL:
        for part in ("weight", "bias"):
            state[f"{relation}.squeeze.0.{part}"] = values[f"{case}.w.{relation}1.{part}"]
            for k in (0, 1):
                state[f"{relation}.excite.{k}.{part}"] = values[f"{case}.w.{relation}2.{k}.{part}"]
    module.load_state_dict(state)
    inputs = [values[f"{case}.in{k}"] for k in (0, 1)]
    gates = module.gates([pooled(each) for each in inputs])
    outputs = module(inputs)
    for k in (0, 1):
        torch.testing.assert_close(gram_similarities(inputs[k]), values[f"{case}.G{k}"], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(gates[k], values[f"{case}.gate{k}"], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(outputs[k], values[f"{case}.out{k}"], rtol=1e-9, atol=1e-12)


def test_official_form_follows_the_published_code(golden, values):
    case, file = "official_2mod_4d_b4c8", golden("e_spamfm")
    shapes = [tuple(map(int, shape.split("x"))) for shape in file[f"{case}.state_shapes"]]
    reference = {key: filled(shape, k) for k, (key, shape) in enumerate(zip(file[f"{case}.state_keys"], shapes, strict=True))}
    state = {}
    for relation, suffix in OFFICIAL.items():
        for k, side in enumerate("st"):
            for part in ("weight", "bias"):
                state[f"{relation}.squeeze.{k}.{part}"] = reference[f"fc_{side}{suffix}.0.{part}"]
                state[f"{relation}.excite.{k}.{part}"] = reference[f"fc_{side}{suffix}.2.{part}"]
    module = Spamfm((8, 8), "official").double()
    module.load_state_dict(state)
    inputs = [values[f"{case}.in{k}"].requires_grad_() for k in (0, 1)]
    outputs = module(inputs)
    gradients = torch.autograd.grad(sum(each.square().sum() for each in outputs), inputs)
    for k in (0, 1):
        torch.testing.assert_close(outputs[k].detach(), values[f"{case}.out{k}"], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(gradients[k], values[f"{case}.grad_sumsq_in{k}"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("channels", [27, 64, 128, 256, 300, 512])
def test_official_form_has_as_many_parameters_as_the_published_one(golden, channels):
    module = Spamfm((channels, channels), "official")
    assert sum(p.numel() for p in module.parameters()) == int(golden("e_spamfm")[f"official_nparams_c{channels}"])


@pytest.mark.parametrize(("teachers", "reduction"), [(2, 4), (4, 8), (6, 12)])
def test_official_bottlenecks_shrink_with_the_number_of_teachers(teachers, reduction):
    module = Spamfm((96,) * teachers, "official")
    assert module.sum.excite[0].in_features == 96 // reduction
    assert module.con.excite[0].in_features == 96 * teachers // reduction


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("teachers", [1, 2, 3, 5])
def test_any_number_of_teachers_with_maps_of_any_size(variant, teachers):
    module = Spamfm((6,) * teachers, variant)
    inputs = [torch.randn(3, 6, 2 + k, 4) for k in range(teachers)]
    outputs = module(inputs)
    assert [each.shape for each in outputs] == [each.shape for each in inputs]
    ratio = outputs[0] / inputs[0]
    torch.testing.assert_close(ratio, ratio[..., :1, :1].expand_as(ratio))


def test_unequal_channels_need_a_projection():
    with pytest.raises(ValueError, match=r"\(4, 6\)"):
        Spamfm((4, 6))
    inputs = [torch.randn(3, 4, 5), torch.randn(3, 6)]
    module = Spamfm((4, 6), projection=True)
    assert [each.shape for each in module(inputs)] == [(3, 4, 5), (3, 6)]
    assert [type(each).__name__ for each in module.project] == ["Linear", "Identity"]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), batch=st.integers(1, 6), scale=st.floats(0.01, 100))
def test_similarity_has_unit_rows_and_no_scale(seed, batch, scale):
    activation = torch.randn(batch, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    G = gram_similarities(activation)
    torch.testing.assert_close(G.norm(dim=1), torch.ones(batch, dtype=torch.float64))
    torch.testing.assert_close(gram_similarities(scale * activation), G)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), order=st.permutations(range(5)))
def test_order_of_samples_does_not_matter(seed, order):
    torch.manual_seed(seed)
    module = Spamfm((4, 4)).double()
    inputs = [torch.randn(5, 4, 3, 3, dtype=torch.float64) for _ in range(2)]
    for one, other in zip(module([each[list(order)] for each in inputs]), module(inputs), strict=True):
        torch.testing.assert_close(one, other[list(order)])


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_gradient_agrees_with_finite_differences(variant):
    torch.manual_seed(0)
    module = Spamfm((3, 3), variant, reduction=1).double()
    inputs = [torch.rand(3, 3, 2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda *each: tuple(module(each)), inputs)


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_one_black_sample_is_finite_with_its_gradient(variant):
    module = Spamfm((4, 4), variant)
    inputs = [torch.zeros(1, 4, 2, 2, requires_grad=True) for _ in range(2)]
    outputs = module(inputs)
    gradients = torch.autograd.grad(sum(each.sum() for each in outputs), inputs)
    assert all(each.isfinite().all() for each in (*outputs, *gradients))


def test_half_precision_does_not_overflow():
    activation = torch.full((2, 8, 32, 32), 60.0, dtype=torch.float16)
    assert pooled(activation).isfinite().all()


@pytest.mark.parametrize("teachers", [2, 3])
def test_the_papers_form_is_a_polynomial_of_its_input_and_the_codes_form_is_bounded(teachers):
    torch.manual_seed(0)
    seen = [torch.rand(4, 8, 3, 3, dtype=torch.float64) for _ in range(teachers)]
    paper = Spamfm([8] * teachers, "paper").double()
    for name, parameter in paper.named_parameters():
        if name.endswith("bias") or not name.startswith("had"):
            nn.init.zeros_(parameter)  # the Hadamard product alone: the gates' degree is the number of teachers
    once, twice = paper(seen), paper([2 * each for each in seen])
    assert any(each.any() for each in once)
    for one, two in zip(once, twice, strict=True):
        torch.testing.assert_close(two, 2 ** (teachers + 1) * one)
    official = Spamfm([8] * teachers, "official").double()
    for before, after in zip(seen, official([1e6 * each for each in seen]), strict=True):
        assert (after <= (1 + 1e-12) * 3e6 * before).all()
