"""Clip encoders: frames one by one, TSN, TRN and TSM."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn
from torch.nn import functional as F

from kdcore import Encoder
from kdcore_video.backbones import activations, create, freeze_norms
from kdcore_video.relations import MultiScaleRelations

Count = Annotated[int, Ge(1)]
Factor = Annotated[float, Gt(0)]
Share = Annotated[float, Ge(0), Lt(1)]


class FrameMean(nn.Module):
    """The mean over a clip's frames, (B·S, …) → (B, …); gives a tap one row per clip."""

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Return the mean of every `frames` consecutive rows of `x`."""
        return x.unflatten(0, (-1, frames)).mean(1)


class FrameEncoder(Encoder):
    """Base class: one backbone for all frames, then a consensus of the frames, which subclasses define.

    Taps: ``mean.<map>`` is the mean over a clip's frames of a feature map, (B, C, H, W), and ``mean.features`` that of the
    frames' features, (B, F). Maps are named as in timm, with an underscore for a dot (``layer1`` … of a ResNet), or
    ``conv1``, ``conv2``, ``inception_3a`` … ``inception_5b``. Any other module can be tapped by its path as well
    (``backbone.layer4``) and then gives one row per frame, (B·S, …).
    """

    frames_apart = True
    """True if the backbone processes each frame by itself."""

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
        self.backbone, self.notes = create(backbone, in_shape[1], pretrained, weights, width)
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
        """Return logits (B, num_classes) of clips (B, S, C, H, W)."""
        seen = x[:, :1] if self._still(x) else x
        features, maps = activations(self.backbone, seen.flatten(0, 1))
        features = self.embedding(self.drop(features))
        for name, value in {**maps, "features": features}.items():
            self.mean[name](value, seen.shape[1])
        return self.consensus(features.unflatten(0, (-1, seen.shape[1])).expand(-1, x.shape[1], -1))

    def _still(self, x: Tensor) -> bool:
        """Return whether all frames of the clip share memory, as in an ablated clip, so that one frame is enough."""
        return self.frames_apart and not self.training and x.stride(1) == 0

    def consensus(self, features: Tensor) -> Tensor:
        """Return logits (B, num_classes) from the frames' features (B, S, F)."""
        raise NotImplementedError


class Frames(FrameEncoder):
    """An image backbone on every frame, averaged over the clip.

    Taps: ``mean.<map>``, a named feature map's mean over the frames, (B, C, H, W), e.g. ``mean.layer4`` or
    ``mean.inception_5b``; ``mean.features``, the frames' mean features, (B, F); any module by its path, one row per frame.

    Args:
        num_classes: Number of classes.
        in_shape: (S, C, H, W).
        backbone: A timm model, or ``bn-inception``.
        pretrained: Start from pretrained weights in an installed package (``kdcore[pretrained]``), or else from timm, which
            downloads and caches them. The run's notes state their source and licence.
        weights: File with weights of the backbone; its classifier is ignored.
        width: Factor on the channels of ``bn-inception``.
        embedding: Width of a layer between frame features and the classifier; None for none.
        drop_rate: Dropout probability of the backbone's features.
        partial_bn: Freeze all batch normalisation but the first, for pretrained backbones.
        average: What is averaged over frames: ``features`` or ``logits`` (equivalent for a linear classifier, but with logits
            per frame) or ``probabilities`` (the logits are then log-probabilities).
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
        if average == "probabilities":
            self.targets = ("classes",)

    def consensus(self, features: Tensor) -> Tensor:
        """Return logits (B, num_classes) from the frames' features (B, S, F)."""
        if self.average == "features":
            return self.classifier(features.mean(1))
        logits = self.classifier(features)
        if self.average == "logits":
            return logits.mean(1)
        return logits.log_softmax(-1).logsumexp(1)


class Tsn(FrameEncoder):
    r"""Temporal segment network: the class scores of a clip are the consensus of its frames' scores.

    .. math:: z = g(W f_1 + b, \dots, W f_S + b)

    with :math:`g` the mean or the maximum over frames.

    Taps: ``mean.<map>``, a named feature map's mean over the frames, (B, C, H, W), e.g. ``mean.layer4`` or
    ``mean.inception_5b``; ``mean.features``, the frames' mean features, (B, F); any module by its path, one row per frame.

    Args:
        num_classes: Number of classes.
        in_shape: (S, C, H, W); C = 2·stack for optical flow.
        backbone: A timm model, or ``bn-inception``.
        pretrained: Start from pretrained weights in an installed package (``kdcore[pretrained]``), or else from timm, which
            downloads and caches them. The run's notes state their source and licence.
        weights: File with weights of the backbone; its classifier is ignored.
        width: Factor on the channels of ``bn-inception``.
        embedding: Width of a layer between frame features and the classifier; None for none.
        drop_rate: Dropout probability of the backbone's features.
        partial_bn: Freeze all batch normalisation but the first, for pretrained backbones.
        segment_consensus: Aggregation of the scores of frames.

    Source: Wang et al., Temporal Segment Networks (ECCV 2016, https://arxiv.org/abs/1608.00859), Eq. (1).
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
        """Return logits (B, num_classes) from the frames' features (B, S, F)."""
        scores = self.classifier(features)
        return scores.mean(1) if self.segment_consensus == "mean" else scores.amax(1)


class Trn(FrameEncoder):
    """Multi-scale temporal relation network: frame features, then relations among two and more frames.

    Taps: ``mean.<map>``, a named feature map's mean over the frames, (B, C, H, W), e.g. ``mean.layer4`` or
    ``mean.inception_5b``; ``mean.features``, the frames' mean features, (B, F); any module by its path, one row per frame.

    Args:
        num_classes: Number of classes.
        in_shape: (S, C, H, W), S at least 2.
        backbone: A timm model, or ``bn-inception``.
        pretrained: Start from pretrained weights in an installed package (``kdcore[pretrained]``), or else from timm, which
            downloads and caches them. The run's notes state their source and licence.
        weights: File with weights of the backbone; its classifier is ignored.
        width: Factor on the channels of ``bn-inception``.
        embedding: Units of a frame's features.
        drop_rate: Dropout probability of the backbone's features, before the embedding.
        partial_bn: Freeze all batch normalisation but the first, for pretrained backbones.
        hidden: Units of each scale's hidden layer.
        relations: Relations per scale: random ones in training, evenly spaced ones in evaluation.

    Source: Zhou et al., Temporal Relational Reasoning in Videos (ECCV 2018, https://arxiv.org/abs/1711.08496); embedding and
    dropout of Liu et al., Semantics-aware Adaptive Knowledge Distillation (TIP 2021, https://arxiv.org/abs/2009.00210), Section
    IV.
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
        """Return logits (B, num_classes) from the frames' features (B, S, F)."""
        return self.relations(features)


class TemporalShift(nn.Module):
    """Exchange a part of the channels between neighbouring frames, so that a layer sees the frames before and after.

    The first ``C // fraction`` channels come from the next frame, as many from the previous one, zeros beyond the ends.
    Shapes: (B·S, C, H, W) → those of `layer`.

    Args:
        layer: Layer that reads the shifted frames.
        frames: S.
        fraction: One in this many channels is shifted in each direction.

    Source: Lin, Gan and Han, TSM: Temporal Shift Module for Efficient Video Understanding (ICCV 2019,
    https://arxiv.org/abs/1811.08383), Section 3.
    """

    def __init__(self, layer: nn.Module, frames: int, fraction: int = 8):
        super().__init__()
        self.layer = layer
        self.frames = frames
        self.fraction = fraction

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of `layer` for the shifted frames."""
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
        backbone: A ResNet of timm.
        pretrained: Start from pretrained weights in an installed package (``kdcore[pretrained]``), or else from timm, which
            downloads and caches them. The run's notes state their source and licence.
        weights: File with weights of the backbone; its classifier is ignored.
        embedding: Width of a layer between frame features and the classifier; None for none.
        drop_rate: Dropout probability of the backbone's features, before the embedding.
        partial_bn: Freeze all batch normalisation but the first, for pretrained backbones.
        fraction: One in this many channels is shifted in each direction.

    Raises:
        ValueError: If the backbone has no residual blocks.

    Source: Lin, Gan and Han, TSM: Temporal Shift Module for Efficient Video Understanding (ICCV 2019,
    https://arxiv.org/abs/1811.08383).
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
        embedding: Count | None = None,
        drop_rate: Share = 0.5,
        partial_bn: bool = False,
        fraction: Annotated[int, Ge(2)] = 8,
    ):
        super().__init__(in_shape, backbone, pretrained, weights, 1.0, embedding, drop_rate, partial_bn)
        self._shift(in_shape[0], fraction)
        self.classifier = nn.Linear(self.features, num_classes)

    def _shift(self, frames: int, fraction: int) -> None:
        from timm.models.resnet import BasicBlock, Bottleneck

        blocks = [module for module in self.backbone.modules() if isinstance(module, BasicBlock | Bottleneck)]
        if not blocks:
            raise ValueError(f"temporal shifts need residual blocks; {type(self.backbone).__name__} has none (choose a resnet)")
        for block in blocks:
            block.conv1 = TemporalShift(block.conv1, frames, fraction)  # type: ignore[assignment]

    def consensus(self, features: Tensor) -> Tensor:
        """Return logits (B, num_classes) from the frames' features (B, S, F)."""
        return self.classifier(features).mean(1)
