"""Gradients of a learner's terms, combined by another rule than their sum."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations

import torch
from torch import Tensor


def project_conflicts(gradients: Tensor, generator: torch.Generator) -> Tensor:
    r"""PCGrad: the sum of gradients, each without its part against another.

    .. math:: g_i \leftarrow g_i - \frac{\min(g_i^\top g_j, 0)}{\lVert g_j \rVert^2} g_j

    for every other gradient :math:`g_j` as it was, in random order.

    Args:
        gradients: (K, P), a row for each term.
        generator: Draws the orders.

    Returns:
        (P,)

    Source: T. Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020, https://arxiv.org/abs/2001.06782,
    Algorithm 1.
    """
    squared = gradients.square().sum(1)
    total = torch.zeros_like(gradients[0])
    for index, gradient in enumerate(gradients):
        for other in torch.randperm(len(gradients), generator=generator).tolist():
            if other != index and squared[other] > 0:
                against = (gradient @ gradients[other]).clamp(max=0)
                gradient = gradient - against / squared[other] * gradients[other]
        total = total + gradient
    return total


def shortest(gradients: Tensor, largest: float = 1.0) -> Tensor:
    r"""MGDA: the shortest convex combination of gradients, whose negative decreases every term, or is 0.

    .. math:: \min_\alpha \Big\lVert \sum_k \alpha_k g_k \Big\rVert^2, \quad 0 \le \alpha_k \le C, \quad \sum_k \alpha_k = 1

    With C below 1, no term can decide alone, and one that disagrees with most others may grow.

    With :math:`L^\top L` the gradients' products and V the corners of the shares that C allows, the nonnegative :math:`\beta`
    that makes :math:`\lVert L V \beta \rVert^2 + (\sum_j \beta_j - 1)^2` least gives :math:`\alpha = V \beta / \sum_j \beta_j`.

    Args:
        gradients: (K, P), a row for each term.
        largest: C, the largest share. All shares are equal where it is 1 / K or less.

    Returns:
        (P,)

    Source: J.-A. Désidéri, "Multiple-Gradient Descent Algorithm", C. R. Math. 2012; O. Sener, V. Koltun, "Multi-Task Learning
    as Multi-Objective Optimization", NeurIPS 2018, https://arxiv.org/abs/1810.04650, Algorithm 2. C: S. Du et al., "Agree to
    Disagree: Adaptive Ensemble Knowledge Distillation in Gradient Space", NeurIPS 2020,
    https://proceedings.neurips.cc/paper/2020/hash/91c77393975889bd08f301c9e13a44b7-Abstract.html.
    """
    from scipy.optimize import nnls

    products = (gradients @ gradients.T).double().cpu()
    longest = float(products.diagonal().max())
    if not longest > 0 or not torch.isfinite(products).all():
        return gradients.mean(0)
    values, vectors = torch.linalg.eigh(products / longest)
    root, allowed = vectors * values.clamp(min=0).sqrt(), _corners(len(gradients), largest)
    rows = torch.cat([root.T @ allowed, torch.ones(1, allowed.shape[1], dtype=root.dtype)]).numpy()
    found, _ = nnls(rows, [*[0.0] * len(gradients), 1.0])
    return (allowed @ torch.from_numpy(found / found.sum())).to(gradients) @ gradients


@lru_cache(maxsize=64)
def _corners(terms: int, largest: float) -> Tensor:
    """The corners of the shares of `terms` terms that are at most `largest` each and sum to 1, (terms, corners) float64."""
    largest = max(largest, 1 / terms)
    full = int(1 / largest + 1e-9)  # shares that are the largest; what is left of 1 is one other term's
    left = max(1 - full * largest, 0.0)
    corners = []
    for chosen in combinations(range(terms), full):
        for other in [each for each in range(terms) if each not in chosen] if left > 1e-9 else [None]:
            corners.append([largest if each in chosen else left if each == other else 0.0 for each in range(terms)])
    return torch.tensor(corners, dtype=torch.float64).T


def combined(
    rule: str, terms: Sequence[Tensor], parameters: Sequence[Tensor], seed: int, largest: float = 1.0
) -> list[Tensor | None]:
    """The gradient of each parameter, None where no term reaches it; the graph is kept.

    The rule combines the gradients of parameters that several terms reach, all of them together as one vector. Parameters of a
    single term, such as a loss's own, have that term's gradient.

    Args:
        rule: ``pcgrad`` or ``mgda``.
        terms: Weighted values of a learner's terms.
        parameters: Of the learner.
        seed: Of the random orders of ``pcgrad``.
        largest: Largest share of a term in ``mgda``.
    """
    each = [torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True) for term in terms]
    reached = [sum(grads[index] is not None for grads in each) for index in range(len(parameters))]
    shared = [index for index, count in enumerate(reached) if count > 1]
    found: list[Tensor | None] = [
        next((grads[index] for grads in each if grads[index] is not None), None) for index in range(len(parameters))
    ]
    if not shared:
        return found
    rows = [torch.cat([_flat(grads[index], parameters[index]) for index in shared]) for grads in each]
    if rule == "mgda":
        together = shortest(torch.stack(rows), largest)
    else:
        together = project_conflicts(torch.stack(rows), torch.Generator().manual_seed(seed))
    parts = together.split([parameters[index].numel() for index in shared])
    for index, part in zip(shared, parts, strict=True):
        found[index] = part.view_as(parameters[index])
    return found


def _flat(gradient: Tensor | None, parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter).flatten() if gradient is None else gradient.flatten()
