"""Adaptive graph convolutional networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdcore import Modality
from kdcore_skeleton.encoders.graph_encoder import Count, GraphEncoder, Kernel, Share, Width, plan
from kdcore_skeleton.encoders.layers import InputNorm, SubsetConv, shortcut, temporal
from kdcore_skeleton.layouts import LayoutOption, layout_of, require_skeleton
from kdcore_skeleton.partition import partition


class Agcn(GraphEncoder):
    """One stream of 2s-AGCN: graph convolutions that learn the graph, a part of it for each sample.

    Shi, Zhang, Cheng, Lu: Two-Stream Adaptive Graph Convolutional Networks for Skeleton-Based Action Recognition, CVPR 2019,
    https://arxiv.org/abs/1805.07694. With input that joins a skeleton and a sensor it is the fusion teacher of PSKD (Ni, Ngu,
    Yan, ACM MM 2022).

    Args:
        num_classes: Number of classes.
        in_shape: (C, T, V, M), any number of channels, frames, joints and persons.
        spec: Description of the input.
        layout: Skeleton layout: a name, or joints, edges and centre. Default: the dataset's layout.
        width: Channels of the first blocks; later ones have two and four times as many.
        depth: Number of blocks. Width 16 and depth 4 train in minutes on two CPU cores.
        kernel: Temporal kernel size in frames; odd.
        dropout: Dropout probability of the classifier's input.
        embedding: Width of a linear layer ``fc0`` before the classifier, None for none; a ReLU follows it.

    Raises:
        ValueError: If no layout is known, the input does not have its joints, or the kernel is even.
    """

    def __init__(
        self,
        num_classes: int,
        in_shape: tuple[int, ...],
        spec: Modality | None = None,
        *,
        layout: LayoutOption | None = None,
        width: Width = 64,
        depth: Count = 10,
        kernel: Kernel = 9,
        dropout: Share = 0.0,
        embedding: Count | None = None,
    ):
        joints = layout_of(spec, layout)
        require_skeleton(in_shape, joints, spec)
        graph = joints.graph()
        adjacency = partition(graph, "agcn-spatial").to(torch.get_default_dtype())
        channels, blocks = in_shape[0], []
        for number, (out_channels, stride) in enumerate(plan(width, depth)):
            blocks.append(AgcnBlock(channels, out_channels, adjacency, kernel, stride, residual=number > 0))
            channels = out_channels
        super().__init__(
            InputNorm(in_shape, by_person=True),
            blocks,
            features=channels,
            persons=in_shape[3],
            num_classes=num_classes,
            embedding=embedding,
            dropout=dropout,
        )
        nn.init.normal_(self.fc.weight, 0, (2 / num_classes) ** 0.5)


class AgcnBlock(nn.Module):
    """An adaptive graph convolution, then a temporal one, around both a residual connection.

    Args:
        channels: C.
        out_channels: C'.
        adjacency: (K, V, V).
        kernel: Temporal kernel size in frames.
        stride: Stride over frames.
        residual: Whether there is a residual connection.

    Shape:
        (N, C, T, V) → (N, C', ⌈T / stride⌉, V).
    """

    def __init__(self, channels: int, out_channels: int, adjacency: Tensor, kernel: int, stride: int, residual: bool):
        super().__init__()
        self.gcn = AdaptiveConv(channels, out_channels, adjacency)
        self.tcn = nn.Sequential(*temporal(out_channels, out_channels, kernel, stride))
        self.residual = shortcut(channels, out_channels, stride) if residual else None
        self.relu = nn.ReLU()
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's activations."""
        out = self.tcn(self.gcn(x))
        return self.relu(out if self.residual is None else out + self.residual(x))


class AdaptiveConv(SubsetConv):
    r"""The adaptive graph convolution, on :math:`A_k + B_k + C_k` (equation 3 of the paper).

    :math:`A` is the skeleton's partition, :math:`B` is learnt, and :math:`C` is the sample's own: how similar joints are,

    .. math:: C_{kvw} = \operatorname{softmax}_v\Big(\frac{1}{IT} \sum_t \theta_k(x_{tv}) \cdot \phi_k(x_{tw})\Big)

    with embeddings :math:`\theta, \phi` of width :math:`I = C' / 4`. Normalisation and a shortcut follow.

    Args:
        channels: C.
        out_channels: C'.
        adjacency: (K, V, V).
    """

    adjacency: Tensor

    def __init__(self, channels: int, out_channels: int, adjacency: Tensor):
        self.width = max(1, out_channels // 4)
        super().__init__(channels, out_channels, len(adjacency))
        self.register_buffer("adjacency", adjacency, persistent=False)
        self.learnt = nn.Parameter(torch.full_like(adjacency, 1e-6))
        self.embed = nn.Linear(channels, 2 * len(adjacency) * self.width)
        self.norm = nn.BatchNorm2d(out_channels)
        self.shortcut = shortcut(channels, out_channels, stride=1)
        self.relu = nn.ReLU()
        nn.init.constant_(self.norm.weight, 1e-6)
        nn.init.normal_(self.embed.weight, 0, (2 / self.width) ** 0.5)
        nn.init.zeros_(self.embed.bias)

    def reset_parameters(self) -> None:
        """Draw weights so that the sum over subsets keeps the variance of gradients."""
        subsets, _, out_channels = self.weight.shape
        nn.init.normal_(self.weight, 0, (2 / (out_channels * subsets)) ** 0.5)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, V) → (N, C', T, V)."""
        graph = self.adjacency + self.learnt + self.similarity(x)
        out = self.norm(self.propagate(x, graph, self.bias.sum(dim=0)))
        return self.relu(out + self.shortcut(x))

    def similarity(self, x: Tensor) -> Tensor:
        """Return the graph C of each sample, (N, K, V, V); columns sum to 1."""
        batch, channels, frames, joints = x.shape
        flat = x.permute(0, 2, 3, 1).reshape(batch, frames * joints, channels)
        weight, bias = (each.expand(batch, -1, -1) for each in (self.embed.weight, self.embed.bias[:, None]))
        embedded = torch.baddbmm(bias, weight, flat.transpose(1, 2))
        theta, phi = embedded.view(batch, 2, len(self.adjacency), self.width * frames, joints).unbind(1)
        return torch.softmax(theta.transpose(-1, -2) @ phi / (self.width * frames), dim=-2)
