"""Layers of graph encoders.

Activations have shape (N, C, T, V) in the ``channels_last`` memory format, that is (N, T, V, C) in memory: graph
convolutions, 1×1 and temporal convolutions then need no copy between them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class InputNorm(nn.Module):
    """Batch normalisation of every channel of every joint; gives each person a row of its own.

    Args:
        in_shape: (C, T, V, M).
        by_person: Normalise each person's joints alone (2s-AGCN) instead of all persons' together (ST-GCN).
    """

    def __init__(self, in_shape: tuple[int, ...], *, by_person: bool):
        channels, _, joints, persons = in_shape
        super().__init__()
        self.bn = nn.BatchNorm1d(channels * joints * (persons if by_person else 1))
        self.by_person = by_person

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, V, M) → (B · M, C, T, V)."""
        batch, channels, frames, joints, persons = x.shape
        rows = x.permute(0, 2, 4, 3, 1)
        if not self.by_person:
            rows = rows.transpose(1, 2)
        rows = self.bn(rows.reshape(-1, self.bn.num_features)).view(rows.shape)
        if self.by_person:
            rows = rows.transpose(1, 2)
        return rows.reshape(batch * persons, frames, joints, channels).permute(0, 3, 1, 2)


class Pool(nn.Module):
    """The mean over time, joints and persons, (B · M, C, T, V) → (B, C).

    Args:
        persons: M.
    """

    def __init__(self, persons: int):
        super().__init__()
        self.persons = persons

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean over all axes but batch and channels."""
        return x.mean(dim=(2, 3)).unflatten(0, (-1, self.persons)).mean(dim=1)


def odd(kernel: int) -> int:
    """`kernel` unchanged.

    Raises:
        ValueError: If it is even: no padding would then keep the number of frames.
    """
    if kernel % 2 == 0:
        raise ValueError(f"a temporal kernel must be odd, not {kernel}")
    return kernel


def temporal(channels: int, out_channels: int, kernel: int, stride: int) -> list[nn.Module]:
    """Return a convolution over time, each joint alone, and its normalisation.

    Raises:
        ValueError: If the kernel is even.
    """
    padding = ((odd(kernel) - 1) // 2, 0)
    return [nn.Conv2d(channels, out_channels, (kernel, 1), (stride, 1), padding), nn.BatchNorm2d(out_channels)]


def shortcut(channels: int, out_channels: int, stride: int) -> nn.Module:
    """Return the identity, or a 1×1 convolution where shapes differ."""
    same = channels == out_channels and stride == 1
    return nn.Identity() if same else nn.Sequential(*temporal(channels, out_channels, 1, stride))


class SubsetConv(nn.Module):
    r"""The dense graph convolution :math:`y_w = \sum_k W_k \sum_v A_{kvw}\, x_v + b_w`.

    All subsets' weights are applied in one product, after the graph: what stands between has K C channels instead of
    K C'. `bias` (K, C') is left to subclasses, which differ on whether it passes through the graph.

    Args:
        channels: C.
        out_channels: C'.
        subsets: K.

    Shape:
        x (N, C, T, V), adjacency (K, V, V) or one per sample (N, K, V, V), indexed ``[from, to]`` → (N, C', T, V).
    """

    def __init__(self, channels: int, out_channels: int, subsets: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(subsets, channels, out_channels))
        self.bias = nn.Parameter(torch.empty(subsets, out_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights as a 1×1 convolution of each subset would."""
        bound = self.weight.shape[1] ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def propagate(self, x: Tensor, adjacency: Tensor, bias: Tensor) -> Tensor:
        """Return the convolution, with a bias of shape (C',) or (V, C')."""
        rows = x.permute(0, 2, 3, 1)
        gathered = gather(rows, adjacency)
        return (gathered @ self.weight.flatten(0, 1) + bias).permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        subsets, channels, out_channels = self.weight.shape
        return f"{channels}, {out_channels}, subsets={subsets}"


def gather(rows: Tensor, adjacency: Tensor) -> Tensor:
    """Return the sum of each joint's neighbours, weighted by the adjacency, subset by subset.

    Args:
        rows: (N, T, V, C).
        adjacency: (K, V, W) or (N, K, V, W).

    Returns:
        (N, T, W, K · C).
    """
    batch, frames, joints, channels = rows.shape
    mixing = adjacency.movedim(-1, -3).flatten(-3, -2)
    each_frame = mixing.expand(batch, -1, -1).unsqueeze(1).expand(-1, frames, -1, -1).flatten(0, 1)
    gathered = torch.bmm(each_frame, rows.reshape(-1, joints, channels))
    return gathered.view(batch, frames, adjacency.shape[-1], -1)
