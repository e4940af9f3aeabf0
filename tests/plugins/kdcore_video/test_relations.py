"""Temporal relations against published numbers and enumeration."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch

from kdcore_video.relations import MultiScaleRelations, unranked

CASES = {"trn_f8_d12_c27": (8, 12, 27), "trn_f3_d12_c27": (3, 12, 27), "trn_f2_d4_c5": (2, 4, 5), "trn_f5_d6_c11": (5, 6, 11)}


def hashed(n, k):
    """The golden numbers' deterministic weights, in [-1, 1)."""
    mask = np.uint64(0xFFFFFFFF)
    h = (np.arange(n, dtype=np.uint64) * np.uint64(2654435761) + np.uint64((k + 1) * 40503)) & mask
    for shift, factor in ((15, 2246822519), (13, 3266489917)):
        h = ((h ^ (h >> np.uint64(shift))) * np.uint64(factor)) & mask
    return (h ^ (h >> np.uint64(16))).astype(np.float64) / 2.0**31 - 1.0


def filled(frames, features, classes):
    module = MultiScaleRelations(frames, features, classes).double()
    for k, parameter in enumerate(module.state_dict().values()):
        u = hashed(parameter.numel(), k).reshape(parameter.shape)
        scale = math.sqrt(6 / math.prod(parameter.shape[1:])) if parameter.ndim > 1 else 0.05
        parameter.copy_(torch.from_numpy(u * scale))
    return module.eval()


@pytest.mark.parametrize("case", CASES)
def test_equals_the_published_code(golden, case):
    numbers = golden("d_trn_tsn")
    module = filled(*CASES[case])
    x = torch.from_numpy(numbers[f"{case}.x"]).requires_grad_()
    out = module(x)
    np.testing.assert_allclose(out.detach(), numbers[f"{case}.out_evenly"], rtol=1e-6, atol=1e-9)
    out.pow(2).sum().backward()
    np.testing.assert_allclose(x.grad, numbers[f"{case}.grad_sumsq_evenly"], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("case", CASES)
def test_all_relations(golden, case):
    numbers = golden("d_trn_tsn")
    module = filled(*CASES[case])
    module.relations = 1000
    out = module(torch.from_numpy(numbers[f"{case}.x"]))
    np.testing.assert_allclose(out.detach(), numbers[f"{case}.out_all_relations"], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("frames", "classes"), [(8, 27), (8, 11), (3, 36)])
def test_published_number_of_parameters(golden, frames, classes):
    module = MultiScaleRelations(frames, 300, classes)
    count = sum(parameter.numel() for parameter in module.parameters())
    assert count == golden("d_trn_tsn")[f"trn_nparams_d300_f{frames}_c{classes}"]


@pytest.mark.parametrize("frames", range(2, 9))
def test_unranked_counts_through_all_combinations(frames):
    for length in range(1, frames + 1):
        every = [list(each) for each in combinations(range(frames), length)]
        assert [unranked(rank, frames, length) for rank in range(len(every))] == every


def test_training_draws_other_relations_each_time():
    torch.manual_seed(0)
    module = MultiScaleRelations(6, 4, 3).train()
    drawn = [tuple(map(tuple, module.chosen(3).tolist())) for _ in range(60)]
    assert all(len(set(each)) == 3 for each in drawn)
    assert all(list(relation) == sorted(set(relation)) for each in drawn for relation in each)
    assert {relation for each in drawn for relation in each} == set(combinations(range(6), 3))
    module.eval()
    assert torch.equal(module.chosen(3), module.chosen(3))


def test_many_frames_are_not_enumerated():
    module = MultiScaleRelations(40, 2, 3, hidden=2)
    assert module.train()(torch.randn(2, 40, 2)).shape == (2, 3)
    assert module.eval()(torch.randn(2, 40, 2)).shape == (2, 3)


def test_one_frame_has_no_relations():
    with pytest.raises(ValueError, match="at least 2 frames"):
        MultiScaleRelations(1, 4, 3)
