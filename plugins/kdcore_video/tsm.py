"""Temporal shift module."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from kdcore_video.encoder import FrameEncoder, Share


class TemporalShift(nn.Module):
    """Lets a layer see the frame before and the one after, by exchanging a part of the channels between frames.

    The first ``C // fraction`` channels come from the next frame, as many from the previous one, zeros beyond the ends.
    Shapes: (B·S, C, H, W) → those of `layer`.

    Args:
        layer: What reads the shifted frames.
        frames: S.
        fraction: One part in this many is shifted each way.

    Source: Lin, Gan and Han, TSM: Temporal Shift Module for Efficient Video Understanding (ICCV 2019), Section 3.
    """

    def __init__(self, layer: nn.Module, frames: int, fraction: int = 8):
        super().__init__()
        self.layer = layer
        self.frames = frames
        self.fraction = fraction

    def forward(self, x: Tensor) -> Tensor:
        """What `layer` makes of the shifted frames."""
        clips = x.unflatten(0, (-1, self.frames))
        part = clips.shape[2] // self.fraction
        later, earlier, same = clips.split((part, part, clips.shape[2] - 2 * part), dim=2)
        later = F.pad(later[:, 1:], (0, 0, 0, 0, 0, 0, 0, 1))
        earlier = F.pad(earlier[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0))
        return self.layer(torch.cat((later, earlier, same), dim=2).flatten(0, 1))


class Tsm(FrameEncoder):
    """A ResNet with a temporal shift before the first convolution of every residual block; scores are averaged over frames.

    Taps: ``mean.<map>``, a named feature map's mean over the frames, (B, C, H, W), e.g. ``mean.layer4`` or
    ``mean.inception_5b``; ``mean.features``, the frames' mean features, (B, F); any module by its path, one row per frame.

    Args:
        num_classes: Number of classes.
        in_shape: (S, C, H, W).
        backbone: A ResNet of timm's.
        pretrained: Start from timm's published weights, which timm downloads unless it has them already.
        weights: File of weights for the backbone; its classifier is left out.
        drop_rate: Dropout of the backbone's features.
        partial_bn: Freeze all batch normalisation but the first, for pretrained backbones.
        fraction: One channel in this many is shifted each way.

    Raises:
        ValueError: If the backbone has no residual blocks.

    Source: Lin, Gan and Han, TSM: Temporal Shift Module for Efficient Video Understanding (ICCV 2019).
    """

    frames_apart = False

    def __init__(
        self,
        num_classes: int,
        in_shape: tuple[int, ...],
        *,
        backbone: str = "resnet18",
        pretrained: bool = False,
        weights: Path | None = None,
        drop_rate: Share = 0.5,
        partial_bn: bool = False,
        fraction: Annotated[int, Ge(2)] = 8,
    ):
        super().__init__(in_shape, backbone, pretrained, weights, 1.0, None, drop_rate, partial_bn)
        self._shift(in_shape[0], fraction)
        self.classifier = nn.Linear(self.features, num_classes)

    def _shift(self, frames: int, fraction: int) -> None:
        from timm.models.resnet import BasicBlock, Bottleneck

        blocks = [module for module in self.backbone.modules() if isinstance(module, BasicBlock | Bottleneck)]
        if not blocks:
            raise ValueError(
                f"temporal shifts go into residual blocks; {type(self.backbone).__name__} has none (choose a resnet)"
            )
        for block in blocks:
            block.conv1 = TemporalShift(block.conv1, frames, fraction)  # type: ignore[assignment]

    def consensus(self, features: Tensor) -> Tensor:
        """Logits (B, num_classes) from the frames' features (B, S, F)."""
        return self.classifier(features).mean(1)
