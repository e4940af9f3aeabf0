"""Temporal segment network."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from kdcore_video.encoder import Count, Factor, FrameEncoder, Share


class Tsn(FrameEncoder):
    r"""Temporal segment network: every frame gives class scores, and the clip's are their consensus.

    .. math:: z = g(W f_1 + b, \dots, W f_S + b)

    with :math:`g` the mean or the maximum over frames.

    Taps: ``mean.<map>``, a named feature map's mean over the frames, (B, C, H, W), e.g. ``mean.layer4`` or
    ``mean.inception_5b``; ``mean.features``, the frames' mean features, (B, F); any module by its path, one row per frame.

    Args:
        num_classes: Number of classes.
        in_shape: (S, C, H, W); C = 2·stack for optical flow.
        backbone: A timm model, or ``bn-inception``.
        pretrained: Start from timm's published weights, which timm downloads unless it has them already.
        weights: File of weights for the backbone; its classifier is left out.
        width: Factor on the channels of ``bn-inception``.
        embedding: Units of a layer between a frame's features and the classifier, None for no such layer.
        drop_rate: Dropout of the backbone's features.
        partial_bn: Freeze all batch normalisation but the first, for pretrained backbones.
        segment_consensus: How the frames' scores become the clip's.

    Source: Wang et al., Temporal Segment Networks (ECCV 2016), Eq. (1).
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
        embedding: Count | None = None,
        drop_rate: Share = 0.8,
        partial_bn: bool = False,
        segment_consensus: Literal["mean", "max"] = "mean",
    ):
        super().__init__(in_shape, backbone, pretrained, weights, width, embedding, drop_rate, partial_bn)
        self.classifier = nn.Linear(self.features, num_classes)
        self.segment_consensus = segment_consensus

    def consensus(self, features: Tensor) -> Tensor:
        """Logits (B, num_classes) from the frames' features (B, S, F)."""
        scores = self.classifier(features)
        return scores.mean(1) if self.segment_consensus == "mean" else scores.amax(1)
