"""Any timm backbone as an encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn

from kdcore import DataError, Encoder, pretrained_backbone


class TimmEncoder(Encoder):
    """A timm backbone, an optional embedding and a linear classifier, on images (C, H, W).

    Taps name modules: ``backbone.<timm's path>``, ``embedding``, ``classifier``. Stages are the feature maps that timm names
    (``layer1`` … of a ResNet, ``features.5`` … of a VGG), then ``head``, ``embedding`` and ``classifier``.

    Args:
        num_classes: Number of classes.
        in_shape: (C, H, W).
        model: A timm model, e.g. ``resnet18``, ``mobilenetv3_small_100``, ``vgg11_bn``.
        pretrained: Start from published weights: those in an installed package (``kdcore[pretrained]``), or else timm's, which
            timm downloads unless it has them already. The run's notes say which, and their licence.
        weights: File of weights for this model (``.safetensors``, or ``.pt`` / ``.pth`` holding tensors only). Its classifier
            is left out, its first convolution adapted to C channels.
        embedding: Units of a layer between features and classifier, None for no such layer.
        drop_rate: Dropout before the classifier.
        arguments: Further arguments of ``timm.create_model``, e.g. ``{img_size: 64}`` for a vision transformer.

    Raises:
        DataError: If the weights cannot be loaded.
        ValueError: If the inputs are not images.
    """

    def __init__(
        self,
        num_classes: int,
        in_shape: tuple[int, ...],
        *,
        model: str = "resnet18",
        pretrained: bool = False,
        weights: Path | None = None,
        embedding: Annotated[int, Ge(1)] | None = None,
        drop_rate: Annotated[float, Ge(0), Lt(1)] = 0.0,
        arguments: dict[str, Any] | None = None,
    ):
        super().__init__()
        if len(in_shape) != 3:
            raise ValueError(f"images are (channels, height, width); these inputs are {in_shape}")
        self.backbone, self.notes = create(model, in_shape[0], pretrained, weights, arguments or {})
        features, self._cut = self._probed(in_shape)
        if embedding:
            self.embedding = nn.Linear(features, embedding)
        self.drop = nn.Dropout(drop_rate)
        self.classifier = nn.Linear(embedding or features, num_classes)

    def _probed(self, in_shape: tuple[int, ...]) -> tuple[int, Mapping[str, Any]]:
        """Width of the features, and the backbone's steps; no steps if running them does not give the features."""
        x = torch.linspace(-1, 1, torch.Size(in_shape).numel()).sin().view(1, *in_shape)
        steps = cut(self.backbone)
        self.backbone.eval()
        with torch.no_grad():
            features = self.backbone(x)
            try:
                for paths in steps.values():
                    x = step(self.backbone, paths)(x)
                same = x.shape == features.shape and bool((x - features).abs().max() <= 1e-4 * features.abs().max())
            except (RuntimeError, TypeError, ValueError, IndexError):
                same = False
        self.backbone.train()
        return features.shape[1], steps if same else {}

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, C, H, W)."""
        features = self.backbone(x)
        if hasattr(self, "embedding"):
            features = self.embedding(features)
        return self.classifier(self.drop(features))

    def stages(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The backbone's named feature maps, the rest of it, the embedding if there is one, and the classifier.

        Raises:
            NotImplementedError: If the backbone does more than run its children in order.
        """
        if not self._cut:
            raise NotImplementedError(
                f"{type(self.backbone).__name__} does not run its parts strictly in order; "
                f"choose a backbone that can be cut into stages, such as resnet18 or vgg16_bn"
            )
        named: dict[str, Callable[[Tensor], Tensor]] = {
            name: step(self.backbone, paths) for name, paths in self._cut.items() if name != REST
        }
        named[REST] = step(self.backbone, self._cut[REST])
        if hasattr(self, "embedding"):
            named["embedding"] = self.embedding
        named["classifier"] = nn.Sequential(self.drop, self.classifier)
        return named


def create(
    model: str, channels: int, pretrained: bool, weights: Path | None, arguments: Mapping[str, Any]
) -> tuple[nn.Module, tuple[str, ...]]:
    """The timm model without its classifier, and where its weights come from.

    Raises:
        DataError: If there is no such model, or its weights cannot be loaded.
    """

    def construct(download: bool) -> nn.Module:
        import timm

        if not timm.is_model(model):
            near = timm.list_models(f"*{model}*")[:5]
            raise DataError(f"timm has no model {model!r}" + (f"; it has {', '.join(near)}" if near else ""))
        return timm.create_model(model, pretrained=download, in_chans=channels, num_classes=0, **arguments)

    if pretrained and weights is None:
        return pretrained_backbone(model, construct, partial(_fill, model, channels), _downloaded)
    backbone = construct(False)
    if weights:
        _load(backbone, model, channels, weights)
    return backbone, ()


def _downloaded(backbone: Any) -> str:
    about = backbone.pretrained_cfg
    where = about.get("hf_hub_id") or about.get("url") or "an unknown source"
    return f"timm downloaded from {where}, licence {about.get('license') or 'not stated'}"


def _load(backbone: nn.Module, model: str, channels: int, path: Path) -> None:
    from timm.models import load_state_dict

    if not path.is_file():
        raise DataError(f"{path}: no such file of weights for {model}")
    try:
        _fill(model, channels, backbone, load_state_dict(str(path)), str(path))
    except DataError:
        raise
    except Exception as error:  # unpickling, too, may fail in any way
        raise DataError(f"{path}: cannot be used as weights of {model}: {error}") from error


def _fill(model: str, channels: int, backbone: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load `state`, its first convolution adapted to the channels.

    Raises:
        DataError: If tensors are missing.
    """
    from timm.models import adapt_input_conv

    first = f"{getattr(backbone, 'pretrained_cfg', {}).get('first_conv')}.weight"
    if first in state:
        state[first] = adapt_input_conv(channels, state[first])
    if missing := backbone.load_state_dict(state, strict=False).missing_keys:
        lacking = f"{len(missing)} tensors are missing, e.g. {missing[0]}"
        raise DataError(f"{source}: these are not weights of {model}: {lacking}")


Cut = Mapping[str, Sequence[str]]
"""Step → paths of the modules that make it up, in the order in which they run."""

REST = "head"
"""Name of what follows the last named feature map."""


def cut(backbone: nn.Module) -> Cut:
    """The steps of a backbone that runs its children in order: one up to each feature map that timm names, and the rest."""
    ends = [info["module"] for info in getattr(backbone, "feature_info", ())]
    steps: dict[str, list[str]] = {}
    waiting: list[str] = []
    for path in _leaves(backbone, ends):
        waiting.append(path)
        if path in ends:
            steps[path], waiting = waiting, []
    steps[REST] = waiting
    return steps


def step(backbone: nn.Module, paths: Sequence[str]) -> nn.Module:
    """The modules at `paths` as one; they stay the backbone's own."""
    return nn.Sequential(*(backbone.get_submodule(path) for path in paths))


def _leaves(module: nn.Module, ends: Sequence[str], prefix: str = "") -> Iterator[str]:
    """Paths of the largest modules that contain no inner end."""
    for name, child in module.named_children():
        path = prefix + name
        if any(end.startswith(path + ".") for end in ends):
            yield from _leaves(child, ends, path + ".")
        else:
            yield path
