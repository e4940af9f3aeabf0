"""Gradients of a learner's terms, combined by another rule than their sum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kdcore.shares import shortest_shares


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
    """MGDA: the shortest convex combination of gradients, whose negative decreases every term, or is 0.

    Args:
        gradients: (K, P), a row for each term.
        largest: Largest share of a term; below 1, no term can decide alone, and one that disagrees with most others may grow.

    Returns:
        (P,)

    Source: J.-A. Désidéri, "Multiple-Gradient Descent Algorithm", C. R. Math. 2012; O. Sener, V. Koltun, "Multi-Task Learning
    as Multi-Objective Optimization", NeurIPS 2018, https://arxiv.org/abs/1810.04650, Algorithm 2.
    """
    return shortest_shares(gradients, largest).to(gradients) @ gradients


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
