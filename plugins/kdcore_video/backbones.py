"""Backbones of clip encoders: any timm model, or BN-Inception."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdcore import DataError, pretrained_backbone


def create(name: str, channels: int, pretrained: bool, weights: Path | None, width: float) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the backbone called `name`, without a classifier, and the source of its weights if they are pretrained.

    Raises:
        DataError: If there is no such model, or its weights cannot be loaded.
    """
    if name == "bn-inception":
        if pretrained and not weights:
            raise DataError("weights of bn-inception are not downloaded; name a file with `weights`")
        backbone = BnInception(channels, width)
        if weights:
            load_published(backbone, weights)
        return backbone, ()
    if width != 1:
        raise ValueError(f"width is an option of bn-inception; {name} has the width that timm gives it")
    return _timm(name, channels, pretrained, weights)


def activations(backbone: Any, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return pooled features (N, F) of images (N, C, H, W), and the named feature maps (N, C_i, H_i, W_i) on the way."""
    if not hasattr(backbone, "forward_intermediates"):
        return backbone(x), {}
    last, maps = backbone.forward_intermediates(x)
    names = [info["module"].replace(".", "_") for info in backbone.feature_info]
    return backbone.forward_head(last), dict(zip(names, maps, strict=True))


def freeze_norms(backbone: nn.Module) -> None:
    """Partial batch normalisation: all but the first normalise by their running statistics and do not learn.

    Source: Wang et al., Temporal Segment Networks (ECCV 2016, https://arxiv.org/abs/1608.00859), Section 3.2.
    """
    norms = [module for module in backbone.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms[1:]:
        norm.eval().requires_grad_(False)


def _timm(name: str, channels: int, pretrained: bool, weights: Path | None) -> tuple[nn.Module, tuple[str, ...]]:
    def construct(download: bool) -> nn.Module:
        import timm

        if not timm.is_model(name):
            near = timm.list_models(f"*{name}*")[:5]
            such = f" such as {near}" if near else ""
            raise DataError(f"no backbone {name!r}: neither bn-inception nor a timm model{such}")
        return timm.create_model(name, pretrained=download, in_chans=channels, num_classes=0)

    def fill(backbone: nn.Module, state: dict[str, Tensor], source: str) -> None:
        load(backbone, _adapted(backbone, channels, state), source)

    if pretrained and weights is None:
        return pretrained_backbone(name, construct, fill, _downloaded)
    backbone = construct(False)
    if weights:
        fill(backbone, tensors(weights), str(weights))
    return backbone, ()


def _adapted(backbone: nn.Module, channels: int, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state` with a first convolution for that number of channels."""
    from timm.models import adapt_input_conv

    first = f"{getattr(backbone, 'pretrained_cfg', {}).get('first_conv')}.weight"
    return state | {first: adapt_input_conv(channels, state[first])} if first in state else state


def _downloaded(backbone: Any) -> str:
    about = backbone.pretrained_cfg
    where = about.get("hf_hub_id") or about.get("url") or "an unknown source"
    return f"timm downloaded from {where}, licence {about.get('license') or 'not stated'}"


def tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors in a file of weights.

    Raises:
        DataError: If it is missing, or holds anything else.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        return {name.removeprefix("module."): value for name, value in state.items()}
    except Exception as error:  # unpickling may fail in any way
        raise DataError(f"{path}: cannot be read as a file of weights: {error}") from error


def load(backbone: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Fill `backbone` from `state`, which may hold more (a classifier); errors name the `source`.

    Raises:
        DataError: If a tensor is missing or of another shape.
    """
    try:
        missing = backbone.load_state_dict(state, strict=False).missing_keys
    except RuntimeError as error:
        raise DataError(f"{source}: does not fit: {error}") from error
    if missing:
        raise DataError(f"{source}: does not fit: {len(missing)} tensors are missing, e.g. {missing[0]}")


class Plan(NamedTuple):
    """Channels of an inception block's convolutions; a block without 1×1 convolution halves its input."""

    one: int
    reduce: int
    three: int
    double_reduce: int
    double: int
    pool: Literal["avg", "max"]
    projection: int


BLOCKS = {
    "inception_3a": Plan(64, 64, 64, 64, 96, "avg", 32),
    "inception_3b": Plan(64, 64, 96, 64, 96, "avg", 64),
    "inception_3c": Plan(0, 128, 160, 64, 96, "max", 0),
    "inception_4a": Plan(224, 64, 96, 96, 128, "avg", 128),
    "inception_4b": Plan(192, 96, 128, 96, 128, "avg", 128),
    "inception_4c": Plan(160, 128, 160, 128, 160, "avg", 128),
    "inception_4d": Plan(96, 128, 192, 160, 192, "avg", 128),
    "inception_4e": Plan(0, 128, 192, 192, 256, "max", 0),
    "inception_5a": Plan(352, 192, 320, 160, 224, "avg", 128),
    "inception_5b": Plan(352, 192, 320, 192, 224, "max", 128),
}


class ConvNorm(nn.Sequential):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)
        self.bn = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()


class Halve(nn.Module):
    """3×3 max-pooling with stride 2, (…, H, W) → (…, ⌈H/2⌉, ⌈W/2⌉); windows start at the first pixel."""

    def forward(self, x: Tensor) -> Tensor:
        """Return pooled maps; `x` is not negative, so zeros can fill an odd edge."""
        height, width = x.shape[-2:]
        return F.max_pool2d(F.pad(x, (0, width % 2, 0, height % 2)), 3, 2, ceil_mode=True)


class Inception(nn.ModuleDict):
    """Four parallel branches, concatenated: 1×1, 3×3, two 3×3 in a row, and pooling. Its keys are the published names."""

    def __init__(self, inputs: int, plan: Plan, width: float):
        one, reduce, three, double_reduce, double, projection = (scaled(size, width) for size in (*plan[:5], plan[6]))
        stride = 1 if plan.one else 2
        same = nn.AvgPool2d(3, 1, padding=1) if plan.pool == "avg" else nn.MaxPool2d(3, 1, padding=1)
        parts = {
            "1x1": ConvNorm(inputs, one, 1) if plan.one else None,
            "3x3_reduce": ConvNorm(inputs, reduce, 1),
            "3x3": ConvNorm(reduce, three, 3, stride),
            "double_3x3_reduce": ConvNorm(inputs, double_reduce, 1),
            "double_3x3_1": ConvNorm(double_reduce, double, 3),
            "double_3x3_2": ConvNorm(double, double, 3, stride),
            "pool_proj": ConvNorm(inputs, projection, 1) if plan.projection else None,
        }
        super().__init__({name: part for name, part in parts.items() if part is not None})
        self.halves = plan.one == 0
        self["pool"] = Halve() if self.halves else same
        self.outputs = (0 if self.halves else one) + three + double + (projection if plan.projection else inputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps of all branches, along the channel axis."""
        three = self["3x3"](self["3x3_reduce"](x))
        double = self["double_3x3_2"](self["double_3x3_1"](self["double_3x3_reduce"](x)))
        pooled = self["pool"](x)
        if self.halves:
            return torch.cat((three, double, pooled), dim=1)
        return torch.cat((self["1x1"](x), three, double, self["pool_proj"](pooled)), dim=1)


class BnInception(nn.Module):
    """BN-Inception without its classifier; the interface is that of a timm model with ``num_classes=0``.

    Its parts, which are also its feature maps: ``conv1``, ``conv2``, ``inception_3a`` … ``inception_5b``.

    Args:
        channels: Of the pictures.
        width: Factor on all channels; 1 is the published network.

    Source: Ioffe and Szegedy, Batch Normalization (ICML 2015, https://arxiv.org/abs/1502.03167), Figure 5; the sizes are those
    of the published weights.
    """

    def __init__(self, channels: int = 3, width: float = 1.0):
        super().__init__()
        first, second = scaled(64, width), scaled(192, width)
        second_conv = {"pool": Halve(), "3x3_reduce": ConvNorm(first, first, 1), "3x3": ConvNorm(first, second, 3)}
        self.conv1 = nn.Sequential(OrderedDict({"7x7_s2": ConvNorm(channels, first, 7, 2)}))
        self.conv2 = nn.Sequential(OrderedDict(second_conv))
        self.pool2 = Halve()
        channels = second
        for name, plan in BLOCKS.items():
            block = Inception(channels, plan, width)
            self.add_module(name, block)
            channels = block.outputs
        self.num_features = channels
        self.feature_info = [{"module": name} for name in ("conv1", "conv2", *BLOCKS)]

    def forward_intermediates(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the last map and all maps of pictures (N, C, H, W)."""
        maps = []
        for name, part in self.named_children():
            x = part(x)
            if name != "pool2":
                maps.append(x)
        return x, maps

    def forward_head(self, x: Tensor) -> Tensor:
        """Return the mean of the last map, (N, num_features)."""
        return x.mean((-2, -1))

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, num_features) of pictures (N, C, H, W)."""
        return self.forward_head(self.forward_intermediates(x)[0])


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, at least one."""
    return max(1, round(channels * width))


def published_name(name: str) -> str:
    """Name of a tensor of `BnInception` in the published files, e.g. ``inception_3a_3x3_reduce_bn.weight``."""
    *path, layer, leaf = name.split(".")
    return "_".join(path) + ("_bn." if layer == "bn" else ".") + leaf


def load_published(backbone: BnInception, path: Path) -> None:
    """Fill `backbone` from a file of the published weights, or of its own.

    The published network reads blue, green, red; its first convolution is reordered to read red, green, blue.

    Raises:
        DataError: If the file cannot be read or does not fit.
    """
    found = tensors(path)
    if "conv1_7x7_s2.weight" in found:
        own = backbone.state_dict()
        names = {name: published_name(name) for name in own}
        found = {name: found[old].reshape_as(own[name]) for name, old in names.items() if old in found}
        found["conv1.7x7_s2.conv.weight"] = found["conv1.7x7_s2.conv.weight"].flip(1)
        found = {name: value for name, value in own.items() if name.endswith("num_batches_tracked")} | found
    load(backbone, found, str(path))
