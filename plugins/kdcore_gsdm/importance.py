"""How much of what a network says is due to its input: the slope ω of its semantic embedding."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Embedding = Literal["soft", "argmax"]
Normalisation = Literal["sym", "printed"]

TINY = 1e-8


def semantic_embedding(logits: Tensor, table: Tensor, how: Embedding) -> Tensor:
    """F (B, D): the class embeddings weighted by softmax(logits), or the likeliest class's (which has no gradient)."""
    return table[logits.argmax(dim=1)] if how == "argmax" else logits.softmax(dim=1) @ table


def affinity(points: Tensor, normalisation: Normalisation) -> Tensor:
    r"""Q (B, B) of the samples' `points` (B, n).

    .. math:: Q = D^{-1/2} W D^{-1/2}, \quad W_{ij} = e^{-\|p_i - p_j\|^2 / 2}, \quad D_{ii} = \textstyle\sum_j W_{ij}

    ``printed`` is the paper's :math:`D^{1/2} W D^{-1/2}`, taken to be a slip.
    """
    W = torch.exp(-(points[:, None] - points[None]).square().sum(dim=-1) / 2)
    root = W.sum(dim=1).sqrt()
    return W / (root[:, None] * root) if normalisation == "sym" else W * root[:, None] / root


def importance(whole: Tensor, ablated: Tensor) -> Tensor:
    r"""ω: the fraction of QF that is lost without input, :math:`(QF - Q_aF_a) / QF`, both (B, D).

    The denominator keeps its sign and a magnitude of at least 1e-8.
    """
    floor = torch.where(whole < 0, -TINY, TINY).to(whole.dtype)
    return (whole - ablated) / torch.where(whole.abs() < TINY, floor, whole)
