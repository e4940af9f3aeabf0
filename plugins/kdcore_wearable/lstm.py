"""A recurrent network for wearable sensors."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn

from kdcore_wearable.chain import Chain
from kdcore_wearable.head import head


class Lstm(Chain):
    """A long short-term memory network for windows (C, T), with two hidden layers as PSKD's wearable student has.

    Layers to tap: ``blocks.0`` (B, hidden, T), ``pool``, ``fc0``, ``fc``.

    Args:
        num_classes: Number of classes.
        in_shape: (C, T).
        hidden: Units of each hidden layer, twice as many where `bidirectional`.
        depth: Number of hidden layers.
        dropout: Between hidden layers and before the classifier.
        bidirectional: Read the window in both directions.
        summary: What of the window the classifier sees: the mean over steps, or the last one, which learns far more slowly.
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
        """Hidden states of the last layer at every step."""
        return self.lstm(x.transpose(1, 2))[0].transpose(1, 2)


class Summary(nn.Module):
    """One vector for a sequence of hidden states, (B, hidden, T) → (B, hidden)."""

    def __init__(self, kind: Literal["last", "mean"], bidirectional: bool):
        super().__init__()
        self.kind = kind
        self.bidirectional = bidirectional

    def forward(self, x: Tensor) -> Tensor:
        """The mean, or each direction's state after its last step."""
        if self.kind == "mean":
            return x.mean(dim=2)
        if not self.bidirectional:
            return x[:, :, -1]
        ahead, back = x.unflatten(1, (2, -1)).unbind(1)
        return torch.cat([ahead[:, :, -1], back[:, :, 0]], dim=1)
