"""Spatial temporal graph convolutional networks."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from kdcore import Modality
from kdcore_skeleton.encoders.graph_encoder import Count, GraphEncoder, Kernel, Share, Width, plan
from kdcore_skeleton.encoders.layers import InputNorm, SubsetConv, shortcut, temporal
from kdcore_skeleton.layouts import LayoutOption, layout_of, require_skeleton
from kdcore_skeleton.partition import partition


class StGcn(GraphEncoder):
    """ST-GCN: ten blocks of a convolution over the skeleton's graph and one over time.

    Yan, Xiong, Lin: Spatial Temporal Graph Convolutional Networks for Skeleton-Based Action Recognition, AAAI 2018,
    https://arxiv.org/abs/1801.07455.

    Args:
        num_classes: Number of classes.
        in_shape: (C, T, V, M), any number of channels, frames, joints and persons.
        spec: Description of the input.
        layout: Skeleton layout: a name, or joints, edges and centre. Default: the dataset's layout.
        strategy: Partition of neighbours into subsets with separate weights.
        max_hop: Maximum distance of a neighbour, in bones.
        width: Channels of the first blocks; later ones have two and four times as many.
        depth: Number of blocks.
        kernel: Temporal kernel size in frames; odd.
        edge_importance: Learn a weight of each edge, in each block.
        dropout: Dropout probability of each block's output, except the first.
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
        strategy: Literal["uniform", "distance", "spatial"] = "spatial",
        max_hop: Count = 1,
        width: Width = 64,
        depth: Count = 10,
        kernel: Kernel = 9,
        edge_importance: bool = True,
        dropout: Share = 0.5,
        embedding: Count | None = None,
    ):
        joints = layout_of(spec, layout)
        require_skeleton(in_shape, joints, spec)
        graph = joints.graph()
        adjacency = partition(graph, strategy, max_hop).to(torch.get_default_dtype())
        channels, blocks = in_shape[0], []
        for number, (out_channels, stride) in enumerate(plan(width, depth)):
            share = dropout if number else 0.0
            blocks.append(StGcnBlock(channels, out_channels, adjacency, kernel, stride, share, bool(number), edge_importance))
            channels = out_channels
        super().__init__(
            InputNorm(in_shape, by_person=False),
            blocks,
            features=channels,
            persons=in_shape[3],
            num_classes=num_classes,
            embedding=embedding,
        )


class StGcnBlock(nn.Module):
    """A graph convolution, then a temporal one, around both a residual connection.

    Args:
        channels: C.
        out_channels: C'.
        adjacency: (K, V, V).
        kernel: Temporal kernel size in frames.
        stride: Stride over frames.
        dropout: Dropout probability of its output.
        residual: Whether there is a residual connection.
        edge_importance: Whether edges have learnt factors.

    Shape:
        (N, C, T, V) → (N, C', ⌈T / stride⌉, V).
    """

    adjacency: Tensor

    def __init__(
        self,
        channels: int,
        out_channels: int,
        adjacency: Tensor,
        kernel: int,
        stride: int,
        dropout: float,
        residual: bool,
        edge_importance: bool,
    ):
        super().__init__()
        self.register_buffer("adjacency", adjacency, persistent=False)
        self.edge_importance = nn.Parameter(torch.ones_like(adjacency)) if edge_importance else None
        self.gcn = SpatialConv(channels, out_channels, len(adjacency))
        self.tcn = nn.Sequential(
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            *temporal(out_channels, out_channels, kernel, stride),
            nn.Dropout(dropout),
        )
        self.residual = shortcut(channels, out_channels, stride) if residual else None
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's activations."""
        adjacency = self.adjacency if self.edge_importance is None else self.adjacency * self.edge_importance
        out = self.tcn(self.gcn(x, adjacency))
        return self.relu(out if self.residual is None else out + self.residual(x))


class SpatialConv(SubsetConv):
    """ST-GCN's graph convolution: the bias of each subset passes through the graph, as its input does."""

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """(N, C, T, V) and (K, V, V) → (N, C', T, V)."""
        return self.propagate(x, adjacency, adjacency.sum(dim=1).T @ self.bias)
