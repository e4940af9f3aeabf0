"""The shortest convex combination against a general solver and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from kdcore.shares import shortest_shares


def drawn(count, size=9, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((count, size)))


@pytest.mark.parametrize("largest", [0.1, 0.25, 1 / 3, 0.4, 0.6, 0.9, 1.0])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_shares_are_those_of_a_general_solver(count, largest):
    limit = max(largest, 1 / count)
    for seed in range(5):
        vectors = drawn(count, seed=seed) * torch.arange(1.0, count + 1)[:, None]
        products = (vectors @ vectors.T).numpy()
        best = minimize(
            lambda shares, products=products: shares @ products @ shares,
            np.full(count, 1 / count),
            bounds=[(0, limit)] * count,
            constraints={"type": "eq", "fun": lambda shares: shares.sum() - 1},
            tol=1e-13,
        )
        found = shortest_shares(vectors, largest)
        np.testing.assert_allclose(found.numpy(), best.x, atol=2e-4)
        assert float(found.min()) > -1e-12
        assert float(found.max()) < limit + 1e-12


def test_two_vectors_have_the_closed_form():
    for seed in range(20):
        a, b = drawn(2, seed=seed)
        share = float((((b - a) @ b) / ((a - b) @ (a - b))).clamp(0.3, 0.7))
        np.testing.assert_allclose(shortest_shares(torch.stack([a, b]), 0.7), [share, 1 - share], atol=1e-9)


@pytest.mark.parametrize("vectors", [torch.zeros(3, 4), torch.full((3, 4), torch.inf), torch.full((3, 4), torch.nan)])
def test_nothing_to_choose_by_gives_equal_shares(vectors):
    np.testing.assert_allclose(shortest_shares(vectors, 0.6), [1 / 3] * 3)


@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_the_scale_does_not_matter(factor):
    torch.testing.assert_close(shortest_shares(drawn(4) * factor, 0.4), shortest_shares(drawn(4), 0.4))


def test_half_precision_and_autocast_change_rounding_alone():
    vectors = drawn(3).half()
    with torch.autocast("cpu", torch.bfloat16):
        found = shortest_shares(vectors, 0.6)
    torch.testing.assert_close(found, shortest_shares(vectors.double(), 0.6), rtol=1e-4, atol=1e-5)
