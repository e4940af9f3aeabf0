"""Base class of ST-GCN and 2s-AGCN: all layers except the graph convolutions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Annotated

from annotated_types import Ge, Lt
from pydantic import AfterValidator
from torch import Tensor, nn

from kdcore import Encoder
from kdcore_skeleton.encoders.layers import InputNorm, Pool, odd

Count = Annotated[int, Ge(1)]
Kernel = Annotated[Count, AfterValidator(odd)]
Share = Annotated[float, Ge(0), Lt(1)]
Width = Annotated[int, Ge(8)]
"""Channels of the first blocks. With fewer, the backward pass of oneDNN's convolutions over ``channels_last`` activations
corrupts memory on CPUs (seen in torch 2.15)."""


class GraphEncoder(Encoder):
    """Normalised input, blocks that convolve over joints and time, the mean over all of them, a classifier.

    Every layer is a stage, named by its path: ``norm``, ``blocks.0`` …, ``pool``, ``fc0`` and ``relu`` where there is an
    embedding, ``dropout``, ``fc``. Blocks give (B · M, channels, T', V), persons of a sample following one another.

    Args:
        norm: Input (B, C, T, V, M) → (B · M, C, T, V).
        blocks: Graph and temporal convolutions.
        features: Channels of the last block.
        persons: M.
        num_classes: Number of classes.
        embedding: Width of a linear layer ``fc0`` before the classifier, None for none; a ReLU follows it.
        dropout: Dropout probability of the classifier's input.
    """

    def __init__(
        self,
        norm: InputNorm,
        blocks: Sequence[nn.Module],
        *,
        features: int,
        persons: int,
        num_classes: int,
        embedding: int | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.norm = norm
        self.blocks = nn.ModuleList(blocks)
        self.pool = Pool(persons)
        if embedding is not None:
            self.fc0 = nn.Linear(features, embedding)
            self.relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(features if embedding is None else embedding, num_classes)

    def stages(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """Return the layers in order, by their paths."""
        return dict(self._layers())

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_classes) of skeletons (B, C, T, V, M)."""
        for _, layer in self._layers():
            x = layer(x)
        return x

    def _layers(self) -> Iterator[tuple[str, nn.Module]]:
        for name, layer in self.named_children():
            if layer is self.blocks:
                yield from ((f"blocks.{number}", block) for number, block in enumerate(self.blocks))
            else:
                yield name, layer


def plan(width: int, depth: int) -> Iterator[tuple[int, int]]:
    """Return channels and stride of each block: three groups of about equal size, each twice as wide as the one before.

    Time is halved where channels double. With width 64 and depth 10 this is the published plan.
    """
    groups = [number * 3 // depth for number in range(depth)]
    for before, group in pairwise([0, *groups]):
        yield width * 2**group, 1 + (group > before)
