"""What the clip encoders have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from kdcore import Encoder
from kdcore_video.backbone import activations, create, freeze_norms

Count = Annotated[int, Ge(1)]
Factor = Annotated[float, Gt(0)]
Share = Annotated[float, Ge(0), Lt(1)]


class FrameMean(nn.Module):
    """The mean over a clip's frames, (B·S, …) → (B, …); stands where a tap wants one row per clip."""

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Mean of every `frames` consecutive rows of `x`."""
        return x.unflatten(0, (-1, frames)).mean(1)


class FrameEncoder(Encoder):
    """One backbone for all frames, then a consensus of theirs; subclasses say which.

    Taps: ``mean.<map>`` is the mean over a clip's frames of a feature map, (B, C, H, W), and ``mean.features`` that of the
    frames' features, (B, F). Maps are named as in timm, with an underscore for a dot (``layer1`` … of a ResNet), or
    ``conv1``, ``conv2``, ``inception_3a`` … ``inception_5b``. Any other module can be tapped by its path as well
    (``backbone.layer4``) and then gives one row per frame, (B·S, …).
    """

    frames_apart = True
    """Whether the backbone sees each frame by itself."""

    def __init__(
        self,
        in_shape: tuple[int, ...],
        backbone: str,
        pretrained: bool,
        weights: Path | None,
        width: float,
        embedding: int | None,
        drop_rate: float,
        partial_bn: bool,
    ):
        super().__init__()
        if len(in_shape) != 4:
            raise ValueError(f"clips are (frames, channels, height, width); these inputs are {in_shape}")
        self.backbone = create(backbone, in_shape[1], pretrained, weights, width)
        self.backbone.eval()
        with torch.no_grad():
            pooled, maps = activations(self.backbone, torch.zeros(1, *in_shape[1:]))
        self.drop = nn.Dropout(drop_rate)
        self.embedding = nn.Linear(pooled.shape[1], embedding) if embedding else nn.Identity()
        self.mean = nn.ModuleDict({name: FrameMean() for name in (*maps, "features")})
        self.features = embedding or pooled.shape[1]
        self.partial_bn = partial_bn
        self.train()

    def train(self, mode: bool = True) -> FrameEncoder:
        """Training or evaluation mode; partial batch normalisation keeps its layers in evaluation."""
        super().train(mode)
        if mode and self.partial_bn:
            freeze_norms(self.backbone)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of clips (B, S, C, H, W)."""
        seen = x[:, :1] if self._still(x) else x
        features, maps = activations(self.backbone, seen.flatten(0, 1))
        features = self.embedding(self.drop(features))
        for name, value in {**maps, "features": features}.items():
            self.mean[name](value, seen.shape[1])
        return self.consensus(features.unflatten(0, (-1, seen.shape[1])).expand(-1, x.shape[1], -1))

    def _still(self, x: Tensor) -> bool:
        """Whether one frame answers for the whole clip: all are the same memory, as in an ablated clip."""
        return self.frames_apart and not self.training and x.stride(1) == 0

    def consensus(self, features: Tensor) -> Tensor:
        """Logits (B, num_classes) from the frames' features (B, S, F)."""
        raise NotImplementedError
