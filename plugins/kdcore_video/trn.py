"""Temporal relation network."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from kdcore_video.encoder import Count, Factor, FrameEncoder, Share
from kdcore_video.relations import MultiScaleRelations


class Trn(FrameEncoder):
    """Multi-scale temporal relation network: frame features, then relations among two and more frames.

    Taps: ``mean.<map>``, a named feature map's mean over the frames, (B, C, H, W), e.g. ``mean.layer4`` or
    ``mean.inception_5b``; ``mean.features``, the frames' mean features, (B, F); any module by its path, one row per frame.

    Args:
        num_classes: Number of classes.
        in_shape: (S, C, H, W), S at least 2.
        backbone: A timm model, or ``bn-inception``.
        pretrained: Start from timm's published weights, which timm downloads unless it has them already.
        weights: File of weights for the backbone; its classifier is left out.
        width: Factor on the channels of ``bn-inception``.
        embedding: Units of a frame's features.
        drop_rate: Dropout of the backbone's features, before the embedding.
        partial_bn: Freeze all batch normalisation but the first, for pretrained backbones.
        hidden: Units of each scale's hidden layer.
        relations: Relations looked at per scale: random ones while training, evenly spaced ones in evaluation.

    Source: Zhou et al., Temporal Relational Reasoning in Videos (ECCV 2018); embedding and dropout of Liu et al.,
    Semantics-aware Adaptive Knowledge Distillation (TIP 2021), Section IV.
    """

    def __init__(
        self,
        num_classes: int,
        in_shape: tuple[int, ...],
        *,
        backbone: str = "bn-inception",
        pretrained: bool = False,
        weights: Path | None = None,
        width: Factor = 1.0,
        embedding: Count = 300,
        drop_rate: Share = 0.8,
        partial_bn: bool = False,
        hidden: Count = 256,
        relations: Count = 3,
    ):
        super().__init__(in_shape, backbone, pretrained, weights, width, embedding, drop_rate, partial_bn)
        self.relations = MultiScaleRelations(in_shape[0], embedding, num_classes, hidden, relations)

    def consensus(self, features: Tensor) -> Tensor:
        """Logits (B, num_classes) from the frames' features (B, S, F)."""
        return self.relations(features)
