"""Shares of several vectors in a combination of them."""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations

import torch
from torch import Tensor


@torch.no_grad()
def shortest_shares(vectors: Tensor, largest: float = 1.0) -> Tensor:
    r"""Shares of the shortest convex combination of vectors, such as gradients of several terms or teachers.

    .. math:: \min_\alpha \Big\| \sum_k \alpha_k g_k \Big\|^2, \quad 0 \le \alpha_k \le C, \quad \sum_k \alpha_k = 1

    With :math:`L^\top L` the vectors' products and V the corners of the shares that C allows, the nonnegative :math:`\beta`
    that makes :math:`\| L V \beta \|^2 + (\sum_j \beta_j - 1)^2` least gives :math:`\alpha = V \beta / \sum_j \beta_j`.

    Args:
        vectors: g, a row for each of K vectors, (K, n).
        largest: C, above 0. All shares are equal where it is 1 / K or less.

    Returns:
        (K,) float64 on the CPU, without a graph. All shares are equal where every vector is 0 or some number is not finite.

    Source: S. Du et al., "Agree to Disagree: Adaptive Ensemble Knowledge Distillation in Gradient Space", NeurIPS 2020,
    https://proceedings.neurips.cc/paper/2020/hash/91c77393975889bd08f301c9e13a44b7-Abstract.html; without C, J.-A. Désidéri,
    "Multiple-Gradient Descent Algorithm", C. R. Math. 2012.
    """
    from scipy.optimize import nnls

    count = len(vectors)
    with torch.autocast(vectors.device.type, enabled=False):
        vectors = vectors if vectors.dtype == torch.float64 else vectors.float()
        products = (vectors @ vectors.T).double().cpu()
    longest = float(products.diagonal().max())
    if not longest > 0 or not torch.isfinite(products).all():
        return torch.full((count,), 1 / count, dtype=torch.float64)
    values, basis = torch.linalg.eigh(products / longest)
    root, allowed = basis * values.clamp(min=0).sqrt(), _corners(count, largest)
    rows = torch.cat([root.T @ allowed, torch.ones(1, allowed.shape[1], dtype=root.dtype)]).numpy()
    beta, _ = nnls(rows, [*[0.0] * count, 1.0])
    return allowed @ torch.from_numpy(beta / beta.sum())


@lru_cache(maxsize=64)
def _corners(count: int, largest: float) -> Tensor:
    """The corners of `count` shares that are at most `largest` each and sum to 1, (count, corners) float64."""
    largest = max(largest, 1 / count)
    full = int(1 / largest + 1e-9)  # shares that are the largest; what is left of 1 is one other's
    left = max(1 - full * largest, 0.0)
    corners = []
    for chosen in combinations(range(count), full):
        for other in [each for each in range(count) if each not in chosen] if left > 1e-9 else [None]:
            corners.append([largest if each in chosen else left if each == other else 0.0 for each in range(count)])
    return torch.tensor(corners, dtype=torch.float64).T
