"""From pooled features to logits: what all encoders here end with."""

from __future__ import annotations

from torch import nn


def head(features: int, num_classes: int, embedding: int | None, dropout: float) -> dict[str, nn.Module]:
    """Named layers from (B, features) to (B, num_classes).

    Args:
        features: Width of what comes in.
        num_classes: Number of classes.
        embedding: Width of a linear layer ``fc0`` before the classifier ``fc``, None for none. What ``fc0`` gives may be
            negative, so that it can be compared with embeddings of words; a ReLU follows it.
        dropout: Share of inputs of the last layer set to zero while training.
    """
    layers: dict[str, nn.Module] = {}
    if embedding is not None:
        layers |= {"fc0": nn.Linear(features, embedding), "relu": nn.ReLU()}
        features = embedding
    return layers | {"dropout": nn.Dropout(dropout), "fc": nn.Linear(features, num_classes)}
