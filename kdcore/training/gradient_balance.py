"""Multi-task gradient rules: PCGrad and MGDA instead of the sum of a learner's term gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kdcore.shares import shortest_shares


def project_conflicts(gradients: Tensor, generator: torch.Generator) -> Tensor:
    r"""PCGrad: the sum of gradients, each projected onto the normal plane of those it conflicts with.

    .. math:: g_i \leftarrow g_i - \frac{\min(g_i^\top g_j, 0)}{\lVert g_j \rVert^2} g_j

    for every other gradient :math:`g_j` as it was, in random order.

    Args:
        gradients: (K, P), one row per term.
        generator: Draws the random orders.

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
        gradients: (K, P), one row per term.
        largest: Upper bound on one term's share. Below 1, the loss of a term that conflicts with most others may grow.

    Returns:
        (P,)

    Source: J.-A. Désidéri, "Multiple-Gradient Descent Algorithm", C. R. Math. 2012; O. Sener, V. Koltun, "Multi-Task Learning
    as Multi-Objective Optimization", NeurIPS 2018, https://arxiv.org/abs/1810.04650, Algorithm 2.
    """
    return shortest_shares(gradients, largest).to(gradients) @ gradients


def combined(
    rule: str, terms: Sequence[Tensor], parameters: Sequence[Tensor], seed: int, largest: float = 1.0
) -> list[Tensor | None]:
    """Compute the combined gradient of each parameter; None for parameters that no term depends on. The graph is retained.

    The rule applies to the parameters that several terms depend on, as one flat vector. Parameters of a single term, such as
    those of its loss, get that term's gradient. A term whose gradient is 0, such as a hinge that every sample meets, is left
    out: otherwise ``mgda`` would stop training, since no direction decreases that term.

    Args:
        rule: ``pcgrad`` or ``mgda``.
        terms: Weighted scalar values of a learner's terms.
        parameters: The learner's trainable parameters.
        seed: Seed of the random orders of ``pcgrad``.
        largest: Upper bound on one term's share in ``mgda``.
    """
    each = [torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True) for term in terms]
    reached = [sum(grads[index] is not None for grads in each) for index in range(len(parameters))]
    shared = [index for index, count in enumerate(reached) if count > 1]
    gradients: list[Tensor | None] = [
        next((grads[index] for grads in each if grads[index] is not None), None) for index in range(len(parameters))
    ]
    if not shared:
        return gradients
    rows = [torch.cat([_flat(grads[index], parameters[index]) for index in shared]) for grads in each]
    rows = [row for row in rows if row.any()] or rows[:1]
    if rule == "mgda":
        flat = shortest(torch.stack(rows), largest)
    else:
        flat = project_conflicts(torch.stack(rows), torch.Generator().manual_seed(seed))
    parts = flat.split([parameters[index].numel() for index in shared])
    for index, part in zip(shared, parts, strict=True):
        gradients[index] = part.view_as(parameters[index])
    return gradients


def _flat(gradient: Tensor | None, parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter).flatten() if gradient is None else gradient.flatten()
