"""The plainest clip encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from kdcore_video.encoder import Count, Factor, FrameEncoder, Share


class Frames(FrameEncoder):
    """An image backbone on every frame, averaged over the clip.

    Taps: ``mean.<map>``, a named feature map's mean over the frames, (B, C, H, W), e.g. ``mean.layer4`` or
    ``mean.inception_5b``; ``mean.features``, the frames' mean features, (B, F); any module by its path, one row per frame.

    Args:
        num_classes: Number of classes.
        in_shape: (S, C, H, W).
        backbone: A timm model, or ``bn-inception``.
        pretrained: Start from timm's published weights, which timm downloads unless it has them already.
        weights: File of weights for the backbone; its classifier is left out.
        width: Factor on the channels of ``bn-inception``.
        embedding: Units of a layer between a frame's features and the classifier, None for no such layer.
        drop_rate: Dropout of the backbone's features.
        partial_bn: Freeze all batch normalisation but the first, for pretrained backbones.
        average: What is averaged over frames: ``features`` or ``logits`` (which comes to the same, as the classifier is
            linear, but gives every frame its logits) or ``probabilities`` (the logits are then log-probabilities).
    """

    def __init__(
        self,
        num_classes: int,
        in_shape: tuple[int, ...],
        *,
        backbone: str = "resnet18",
        pretrained: bool = False,
        weights: Path | None = None,
        width: Factor = 1.0,
        embedding: Count | None = None,
        drop_rate: Share = 0.0,
        partial_bn: bool = False,
        average: Literal["features", "logits", "probabilities"] = "features",
    ):
        super().__init__(in_shape, backbone, pretrained, weights, width, embedding, drop_rate, partial_bn)
        self.classifier = nn.Linear(self.features, num_classes)
        self.average = average

    def consensus(self, features: Tensor) -> Tensor:
        """Logits (B, num_classes) from the frames' features (B, S, F)."""
        if self.average == "features":
            return self.classifier(features.mean(1))
        logits = self.classifier(features)
        if self.average == "logits":
            return logits.mean(1)
        return logits.log_softmax(-1).logsumexp(1)
