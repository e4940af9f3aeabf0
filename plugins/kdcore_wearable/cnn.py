"""Small convolutional networks: over time, and over images made of signals."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from annotated_types import Ge, Lt
from torch import nn

from kdcore_wearable.chain import Chain, GlobalAverage
from kdcore_wearable.head import head

Norm = Literal["batch", "group", "none"]
Count = Annotated[int, Ge(1)]
Share = Annotated[float, Ge(0), Lt(1)]


class Cnn1d(Chain):
    """A compact 1-D convolutional network for windows (C, T) of a wearable sensor; 0.14 M parameters as it comes.

    Each block is convolution, normalisation, ReLU and, but in the last, max pooling by 2. Channels double from block to
    block up to four times `width`. Layers to tap: ``blocks.0`` … (B, channels, T'), ``pool``, ``fc0``, ``fc``.

    Args:
        num_classes: Number of classes.
        in_shape: (C, T).
        width: Channels of the first block; a multiple of 8 for group normalisation.
        depth: Number of blocks.
        kernel: Samples that a convolution spans, odd.
        dropout: Before the classifier.
        norm: Normalisation after each convolution; ``group`` does not look at the rest of the batch.
        embedding: Width of a linear layer ``fc0`` before the classifier, None for none.
    """

    def __init__(
        self,
        num_classes: int,
        in_shape: tuple[int, ...],
        *,
        width: Count = 32,
        depth: Count = 4,
        kernel: Count = 5,
        dropout: Share = 0.3,
        norm: Norm = "batch",
        embedding: Count | None = None,
    ):
        sizes = _widths(in_shape, 2, "(channels, time)", width, depth)
        super().__init__(
            _blocks(1, sizes, kernel, norm), {"pool": GlobalAverage(), **head(sizes[-1], num_classes, embedding, dropout)}
        )


class Cnn2d(Chain):
    """The same network over images (C, H, W), for signals drawn as images such as Gramian angular fields.

    Args:
        num_classes: Number of classes.
        in_shape: (C, H, W).
        width: Channels of the first block; a multiple of 8 for group normalisation.
        depth: Number of blocks.
        kernel: Side of a convolution's window, odd.
        dropout: Before the classifier.
        norm: Normalisation after each convolution; ``group`` does not look at the rest of the batch.
        embedding: Width of a linear layer ``fc0`` before the classifier, None for none.
    """

    def __init__(
        self,
        num_classes: int,
        in_shape: tuple[int, ...],
        *,
        width: Count = 32,
        depth: Count = 4,
        kernel: Count = 3,
        dropout: Share = 0.3,
        norm: Norm = "batch",
        embedding: Count | None = None,
    ):
        sizes = _widths(in_shape, 3, "(channels, height, width)", width, depth)
        super().__init__(
            _blocks(2, sizes, kernel, norm), {"pool": GlobalAverage(), **head(sizes[-1], num_classes, embedding, dropout)}
        )


def _widths(in_shape: tuple[int, ...], axes: int, wanted: str, width: int, depth: int) -> list[int]:
    if len(in_shape) != axes:
        raise ValueError(f"this encoder reads {wanted}, not a tensor of shape {tuple(in_shape)}")
    return [in_shape[0], *(width * min(4, 2**i) for i in range(depth))]


def _blocks(dims: int, sizes: list[int], kernel: int, norm: Norm) -> list[nn.Module]:
    convolution = (nn.Conv1d, nn.Conv2d)[dims - 1]
    batch_norm = (nn.BatchNorm1d, nn.BatchNorm2d)[dims - 1]
    max_pool = (nn.MaxPool1d, nn.MaxPool2d)[dims - 1]
    blocks: list[nn.Module] = []
    for number, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
        layers: list[nn.Module] = [convolution(inputs, outputs, kernel, padding=kernel // 2, bias=norm == "none")]
        if norm == "batch":
            layers.append(batch_norm(outputs))
        elif norm == "group":
            layers.append(nn.GroupNorm(8, outputs))
        layers.append(nn.ReLU())
        if number < len(sizes) - 1:
            layers.append(max_pool(2, ceil_mode=True))  # rounding up, so that a short window never shrinks to nothing
        blocks.append(nn.Sequential(*layers))
    return blocks
