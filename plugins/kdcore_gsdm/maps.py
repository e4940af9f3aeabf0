"""Semantically discriminative maps: their channel weights ω, the maps, and distances between maps."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from kdcore.functional import adaptive_mean, unit_rows

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


def semantic_map(activation: Tensor, omega: Tensor) -> Tensor:
    """M (B, h, w): the mean over frames of `frame_maps`, whose arguments it takes."""
    return frame_maps(activation, omega).mean(dim=1)


def frame_maps(activation: Tensor, omega: Tensor) -> Tensor:
    r"""A clip's maps (B, S, h, w): :math:`\mathrm{ReLU}(\sum_p \omega_p A_p)` over the channels p; S = 1 for an image.

    Args:
        activation: (B, C, h, w) or (B, C, t), whose map has one row; or the frames of clips, (B·S, C, …) or (B, S, C, h, w).
        omega: (B, D), pooled adaptively to the C channels; D = 1 gives all channels one weight.
    """
    if len(activation) != len(omega):
        activation = activation.unflatten(0, (len(omega), -1))
    elif activation.dim() < 5:
        activation = activation[:, None]
    if activation.dim() == 4:
        activation = activation[..., None, :]
    weights = adaptive_mean(omega, 1, activation.shape[2])
    maps = weights[:, None, None] @ activation.flatten(3)  # einsum would copy the activations
    return maps[:, :, 0].unflatten(-1, activation.shape[3:]).relu()


def distance(one: Tensor, other: Tensor) -> Tensor:
    """Mean over samples of the squared distance between maps (B, h, w) of unit length; a map of zeros stays one."""
    one, other = same_size(one, other)
    return (unit_rows(one, TINY) - unit_rows(other, TINY)).square().sum(dim=1).mean()


def official_distance(one: Tensor, other: Tensor) -> Tensor:
    """As published: maps scaled to [0, 1] over the batch, columns of unit length, mean over all entries."""
    one, other = (F.normalize(each, dim=1, eps=TINY) for each in same_size(_scaled(one), _scaled(other)))
    return F.mse_loss(one, other)


def same_size(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps with the smaller height and the smaller width, by bilinear interpolation."""
    height, width = map(min, one.shape[1:], other.shape[1:])
    return _resized(one, height, width), _resized(other, height, width)


def _resized(maps: Tensor, height: int, width: int) -> Tensor:
    if maps.shape[1:] == (height, width):
        return maps
    return F.interpolate(maps[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0]


def _scaled(maps: Tensor) -> Tensor:
    maps = maps - maps.amin()
    return maps / maps.amax().clamp_min(TINY)
