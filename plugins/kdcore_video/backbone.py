"""Backbones of clip encoders: any timm model, or BN-Inception."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdcore import DataError


def create(name: str, channels: int, pretrained: bool, weights: Path | None, width: float) -> nn.Module:
    """The backbone called `name`, without a classifier.

    Raises:
        DataError: If there is no such model, or its weights cannot be had or do not fit.
    """
    if name == "bn-inception":
        from kdcore_video.bn_inception import BnInception, load_published

        if pretrained and not weights:
            raise DataError("weights of bn-inception are not downloaded; name a file with `weights`")
        backbone = BnInception(channels, width)
        if weights:
            load_published(backbone, weights)
        return backbone
    if width != 1:
        raise ValueError(f"width is an option of bn-inception; {name} has the width that timm gives it")
    return _timm(name, channels, pretrained, weights)


def activations(backbone: Any, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Pooled features (N, F) of images (N, C, H, W), and the named feature maps (N, C_i, H_i, W_i) on the way."""
    if not hasattr(backbone, "forward_intermediates"):
        return backbone(x), {}
    last, maps = backbone.forward_intermediates(x)
    names = [info["module"].replace(".", "_") for info in backbone.feature_info]
    return backbone.forward_head(last), dict(zip(names, maps, strict=True))


def freeze_norms(backbone: nn.Module) -> None:
    """Partial batch normalisation: all but the first normalise by their running statistics and do not learn.

    Source: Wang et al., Temporal Segment Networks (ECCV 2016), Section 3.2.
    """
    norms = [module for module in backbone.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms[1:]:
        norm.eval().requires_grad_(False)


def _timm(name: str, channels: int, pretrained: bool, weights: Path | None) -> nn.Module:
    import timm

    if not timm.is_model(name):
        near = timm.list_models(f"*{name}*")[:5]
        raise DataError(f"no backbone {name!r}: neither bn-inception nor a timm model" + (f" such as {near}" if near else ""))
    download = pretrained and weights is None
    try:
        backbone = timm.create_model(name, pretrained=download, in_chans=channels, num_classes=0)
    except Exception as error:  # a download fails in as many ways as there are libraries between here and the server
        if not download:
            raise
        raise DataError(
            f"weights of {name} cannot be downloaded ({type(error).__name__}); fetch them elsewhere and name the file "
            f"with `weights`, or set `pretrained: false`"
        ) from error
    if weights:
        from timm.models import adapt_input_conv

        state = tensors(weights)
        first = f"{getattr(backbone, 'pretrained_cfg', {}).get('first_conv')}.weight"
        if first in state:
            state[first] = adapt_input_conv(channels, state[first])
        load(backbone, state, weights)
    return backbone


def tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a file of weights.

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


def load(backbone: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Fill `backbone` from `state`, which may hold more (a classifier).

    Raises:
        DataError: If a tensor is missing or of another shape.
    """
    try:
        missing = backbone.load_state_dict(state, strict=False).missing_keys
    except RuntimeError as error:
        raise DataError(f"{path}: does not fit: {error}") from error
    if missing:
        raise DataError(f"{path}: does not fit: {len(missing)} tensors are missing, e.g. {missing[0]}")
