"""Encoders of wearable signals: convolutional and recurrent networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Lt, MinLen
from torch import Tensor, nn

from kdcore import Encoder


class Chain(Encoder):
    """A sequence of named layers. Each layer is a stage and can be tapped by name.

    Args:
        blocks: The first layers, called ``blocks.0``, ``blocks.1`` …
        layers: The layers after them, by name.
    """

    def __init__(self, blocks: list[nn.Module], layers: Mapping[str, nn.Module]):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._order = [*(f"blocks.{number}" for number in range(len(blocks))), *layers]

    def stages(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """Return the layers in order, by name."""
        return {name: self.get_submodule(name) for name in self._order}

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_classes) of ``x`` (B, *in_shape)."""
        for block in self.blocks:
            x = block(x)
        for name in self._order[len(self.blocks) :]:
            x = self._modules[name](x)  # type: ignore[misc]
        return x


class GlobalAverage(nn.Module):
    """The mean over time or pixels, (B, C, …) → (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean over all axes after the channels."""
        return x.flatten(2).mean(dim=2)


def head(features: int, num_classes: int, embedding: int | None, dropout: float) -> dict[str, nn.Module]:
    """Return named layers from (B, features) to (B, num_classes).

    Args:
        features: Number of input features.
        num_classes: Number of classes.
        embedding: Width of a linear layer ``fc0`` before the classifier ``fc``, None for none. Its outputs may be negative, so
            that they can be compared with word embeddings; a ReLU follows.
        dropout: Dropout probability of the input of the last layer.
    """
    layers: dict[str, nn.Module] = {}
    if embedding is not None:
        layers |= {"fc0": nn.Linear(features, embedding), "relu": nn.ReLU()}
        features = embedding
    return layers | {"dropout": nn.Dropout(dropout), "fc": nn.Linear(features, num_classes)}


Norm = Literal["batch", "group", "none"]
Count = Annotated[int, Ge(1)]
Share = Annotated[float, Ge(0), Lt(1)]


class Cnn1d(Chain):
    """A compact 1-D convolutional network for windows (C, T) of a wearable sensor; 0.14 M parameters by default.

    Each block is convolution, normalisation, ReLU and, but in the last, max pooling by 2. Channels double from block to
    block up to four times `width`. Taps: ``blocks.0`` … (B, channels, T'), ``projector``, ``pool``, ``fc0``,
    ``fc``.

    Args:
        num_classes: Number of classes.
        in_shape: (C, T).
        width: Channels of the first block; a multiple of 8 for group normalisation.
        depth: Number of blocks.
        kernel: Kernel size in samples; odd.
        dropout: Dropout probability before the classifier.
        norm: Normalisation after each convolution; ``group`` does not depend on the rest of the batch.
        embedding: Width of a linear layer ``fc0`` before the classifier, None for none.
        projector: Channels of a layer ``projector`` before the mean, three convolutions of which the inner one is half as wide;
            None for none. It gives a student as many features as a teacher has whose classifier it uses.
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
        projector: Annotated[int, Ge(2)] | None = None,
    ):
        sizes = _widths(in_shape, 2, "(channels, time)", width, depth)
        layers = _projected(1, sizes[-1], projector, norm) | {"pool": GlobalAverage()}
        features = projector or sizes[-1]
        super().__init__(_blocks(1, sizes, kernel, norm), layers | head(features, num_classes, embedding, dropout))


class LateFusionCnn1d(Chain):
    r"""A `Cnn1d` trunk for each group of channels, such as each sensor's; their features are concatenated and classified.

    .. math:: z = W\,\left[m_1 f_1(x_1); \dots; m_K f_K(x_K)\right] + b,
        \quad m_k \in \left\{0, \tfrac{1}{1 - p}\right\} \text{ while training}

    Dropping whole branches while training keeps the network from relying on a single one: ModDrop, N. Neverova, C. Wolf,
    G. Taylor, F. Nebout, "ModDrop: Adaptive Multi-Modal Gesture Recognition", 2015, https://arxiv.org/abs/1501.00102.
    Taps: ``branches`` (B, K · channels), ``fc0``, ``fc``, and those of a branch, such as ``branches.trunks.0.2``.

    Args:
        num_classes: Number of classes.
        in_shape: (C, T).
        groups: Channels of each branch, in order; they sum to C.
        width: Channels of the first block of each branch; a multiple of 8 for group normalisation.
        depth: Number of blocks of each branch.
        kernel: Kernel size in samples; odd.
        dropout: Dropout probability before the classifier.
        branch_dropout: p, the probability that all features of a branch are set to zero, for each sample on its own.
        norm: Normalisation after each convolution; ``group`` does not depend on the rest of the batch.
        embedding: Width of a linear layer ``fc0`` before the classifier, None for none.

    Raises:
        ValueError: If the groups do not sum to the number of channels.
    """

    def __init__(
        self,
        num_classes: int,
        in_shape: tuple[int, ...],
        *,
        groups: Annotated[tuple[Count, ...], MinLen(1)],
        width: Count = 32,
        depth: Count = 4,
        kernel: Count = 5,
        dropout: Share = 0.3,
        branch_dropout: Share = 0.1,
        norm: Norm = "batch",
        embedding: Count | None = None,
    ):
        sizes = [_widths((group, *in_shape[1:]), 2, "(channels, time)", width, depth) for group in groups]
        if sum(groups) != in_shape[0]:
            raise ValueError(f"groups {list(groups)} sum to {sum(groups)}, but the input has {in_shape[0]} channels")
        trunks = [nn.Sequential(*_blocks(1, each, kernel, norm), GlobalAverage()) for each in sizes]
        features = sum(each[-1] for each in sizes)
        layers = {"branches": Branches(trunks, groups, branch_dropout), **head(features, num_classes, embedding, dropout)}
        super().__init__([], layers)


class Branches(nn.Module):
    """A network for each group of channels, side by side: (B, C, T) → (B, K · features).

    Args:
        trunks: K networks, (B, groups[k], T) → (B, features), with equally many features.
        groups: Channels of each.
        dropout: Probability that a branch's features are set to zero while training.
    """

    def __init__(self, trunks: Sequence[nn.Module], groups: Sequence[int], dropout: float):
        super().__init__()
        self.trunks = nn.ModuleList(trunks)
        self.groups = list(groups)
        self.dropout = nn.Dropout1d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features of all branches, one after the other."""
        parts = x.split(self.groups, dim=1)
        features = torch.stack([trunk(part) for trunk, part in zip(self.trunks, parts, strict=True)], dim=1)
        return self.dropout(features).flatten(1)


class Cnn2d(Chain):
    """A compact 2-D convolutional network for images (C, H, W), for signals drawn as images such as Gramian angular fields.

    Args:
        num_classes: Number of classes.
        in_shape: (C, H, W).
        width: Channels of the first block; a multiple of 8 for group normalisation.
        depth: Number of blocks.
        kernel: Kernel size in pixels; odd.
        dropout: Dropout probability before the classifier.
        norm: Normalisation after each convolution; ``group`` does not depend on the rest of the batch.
        embedding: Width of a linear layer ``fc0`` before the classifier, None for none.
        projector: Channels of a layer ``projector`` before the mean, three convolutions of which the inner one is half as wide;
            None for none. It gives a student as many features as a teacher has whose classifier it uses.
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
        projector: Annotated[int, Ge(2)] | None = None,
    ):
        sizes = _widths(in_shape, 3, "(channels, height, width)", width, depth)
        layers = _projected(2, sizes[-1], projector, norm) | {"pool": GlobalAverage()}
        features = projector or sizes[-1]
        super().__init__(_blocks(2, sizes, kernel, norm), layers | head(features, num_classes, embedding, dropout))


def _widths(in_shape: tuple[int, ...], axes: int, wanted: str, width: int, depth: int) -> list[int]:
    if len(in_shape) != axes:
        raise ValueError(f"this encoder reads {wanted}, not a tensor of shape {tuple(in_shape)}")
    return [in_shape[0], *(width * min(4, 2**i) for i in range(depth))]


def _projected(dims: int, inputs: int, outputs: int | None, norm: Norm) -> dict[str, nn.Module]:
    """Return the layer ``projector`` from `inputs` channels to `outputs`, as SimKD has it; none if `outputs` is None."""
    if outputs is None:
        return {}
    sizes = [(inputs, outputs // 2, 1), (outputs // 2, outputs // 2, 3), (outputs // 2, outputs, 1)]
    return {"projector": nn.Sequential(*(layer for each in sizes for layer in _convolution(dims, *each, norm)))}


def _convolution(dims: int, inputs: int, outputs: int, kernel: int, norm: Norm) -> list[nn.Module]:
    """Return a convolution that keeps lengths, normalisation and ReLU."""
    convolution = (nn.Conv1d, nn.Conv2d)[dims - 1]
    layers: list[nn.Module] = [convolution(inputs, outputs, kernel, padding=kernel // 2, bias=norm == "none")]
    if norm == "batch":
        layers.append((nn.BatchNorm1d, nn.BatchNorm2d)[dims - 1](outputs))
    elif norm == "group":
        layers.append(nn.GroupNorm(8, outputs))
    return [*layers, nn.ReLU()]


def _blocks(dims: int, sizes: list[int], kernel: int, norm: Norm) -> list[nn.Module]:
    max_pool = (nn.MaxPool1d, nn.MaxPool2d)[dims - 1]
    blocks: list[nn.Module] = []
    for number, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
        layers = _convolution(dims, inputs, outputs, kernel, norm)
        if number < len(sizes) - 1:
            layers.append(max_pool(2, ceil_mode=True))  # rounding up, so that a short window never shrinks to nothing
        blocks.append(nn.Sequential(*layers))
    return blocks


class Lstm(Chain):
    """A long short-term memory network for windows (C, T), with two hidden layers as PSKD's wearable student has.

    Taps: ``blocks.0`` (B, hidden, T), ``pool``, ``fc0``, ``fc``.

    Args:
        num_classes: Number of classes.
        in_shape: (C, T).
        hidden: Units of each hidden layer, doubled if `bidirectional`.
        depth: Number of hidden layers.
        dropout: Dropout probability between hidden layers and before the classifier.
        bidirectional: Whether to read the window in both directions.
        summary: Input of the classifier: the mean over steps, or the last step, which learns far more slowly.
        embedding: Width of a linear layer ``fc0`` before the classifier, None for none.
    """

    def __init__(
        self,
        num_classes: int,
        in_shape: tuple[int, ...],
        *,
        hidden: Annotated[int, Ge(1)] = 128,
        depth: Annotated[int, Ge(1)] = 2,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.3,
        bidirectional: bool = False,
        summary: Literal["last", "mean"] = "mean",
        embedding: Annotated[int, Ge(1)] | None = None,
    ):
        if len(in_shape) != 2:
            raise ValueError(f"this encoder reads (channels, time), not a tensor of shape {tuple(in_shape)}")
        recurrent = Recurrent(in_shape[0], hidden, depth, dropout, bidirectional)
        features = hidden * (2 if bidirectional else 1)
        layers = {"pool": Summary(summary, bidirectional), **head(features, num_classes, embedding, dropout)}
        super().__init__([recurrent], layers)


class Recurrent(nn.Module):
    """LSTM layers with time last, as everywhere in kdcore: (B, C, T) → (B, hidden, T)."""

    def __init__(self, channels: int, hidden: int, depth: int, dropout: float, bidirectional: bool):
        super().__init__()
        between = dropout if depth > 1 else 0.0
        self.lstm = nn.LSTM(channels, hidden, depth, batch_first=True, dropout=between, bidirectional=bidirectional)
        for name, parameter in self.lstm.named_parameters():
            if "bias_ih" in name:  # gates that start open let gradients reach the beginning of the window
                nn.init.ones_(parameter.data[hidden : 2 * hidden])

    def forward(self, x: Tensor) -> Tensor:
        """Return hidden states of the last layer at every step."""
        return self.lstm(x.transpose(1, 2))[0].transpose(1, 2)


class Summary(nn.Module):
    """One vector for a sequence of hidden states, (B, hidden, T) → (B, hidden)."""

    def __init__(self, kind: Literal["last", "mean"], bidirectional: bool):
        super().__init__()
        self.kind = kind
        self.bidirectional = bidirectional

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean, or each direction's state after its last step."""
        if self.kind == "mean":
            return x.mean(dim=2)
        if not self.bidirectional:
            return x[:, :, -1]
        ahead, back = x.unflatten(1, (2, -1)).unbind(1)
        return torch.cat([ahead[:, :, -1], back[:, :, 0]], dim=1)
