"""Class activation maps of encoders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

COARSEST = 6
"""Minimum number of positions along the shorter side of a map; coarser maps are not precise enough."""


def class_activation(features: Tensor, weights: Tensor) -> Tensor:
    r"""Class activation map: the evidence for a class at each position of a feature map, in [0, 1].

    .. math:: M = \mathrm{ReLU}\Big(\sum_c w_c A_c\Big) / \max M

    A map without such evidence is zero everywhere.

    Args:
        features: (…, C, h, w).
        weights: (…, C): a class's row of the classifier, gradients, or a semantics-guided ω.

    Returns:
        (…, h, w).

    Source: Zhou et al., Learning Deep Features for Discriminative Localization (CVPR 2016, https://arxiv.org/abs/1512.04150),
    Eq. (2).
    """
    maps = torch.einsum("...chw,...c->...hw", features.detach(), weights.detach()).clamp(min=0)
    return maps / maps.amax((-2, -1), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)


def hires_cam(encoder: nn.Module, inputs: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor | None:
    r"""Saliency of each position of images, or of clips' frames, for an encoder's prediction.

    .. math:: M = \mathrm{ReLU}\Big(\sum_c \frac{\partial y}{\partial A_c} \odot A_c\Big)

    A is the deepest feature map that is no coarser than `COARSEST`. Unlike Grad-CAM, gradients are not averaged over
    positions first, so a map does not mark places that the prediction does not depend on; before a global mean and a
    linear classifier, the two and `class_activation` are the same up to a factor.

    Args:
        encoder: Encoder of inputs (B, C, H, W) or (B, S, C, H, W).
        inputs: Inputs of the encoder.
        score: Runs the encoder on the inputs and returns the value y to explain.

    Returns:
        (B, h, w) or (B, S, h, w); None if it has no feature maps.

    Source: Draelos and Carin, Use HiResCAM instead of Grad-CAM (arXiv 2011.08891, 2020).
    """
    inputs = inputs.detach().requires_grad_()
    y, seen = _feature_maps(encoder, inputs, score)
    gradients = torch.autograd.grad(y, seen, allow_unused=True) if seen else ()
    used = [(A, slope) for A, slope in zip(seen, gradients, strict=True) if slope is not None]
    if not used:
        return None
    finest = min(COARSEST, max(min(A.shape[2:]) for A, _ in used))
    A, slope = next((A, slope) for A, slope in reversed(used) if min(A.shape[2:]) >= finest)
    found = (A * slope).sum(dim=1).clamp(min=0).detach()
    return found if inputs.dim() == 4 else found.unflatten(0, inputs.shape[:2])


def _feature_maps(encoder: nn.Module, inputs: Tensor, score: Callable[[Tensor], Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Return the score, and the maps that modules return during the forward pass, in order.

    Maps inside another module that returns a map are left out, unless it is a plain sequence: inside a residual block, for
    example, a map is not the only path to the output.
    """
    seen: list[tuple[str, Tensor]] = []

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def see(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.requires_grad and _is_map(output, inputs):
                seen.append((name, output))

        return see

    modules = dict(encoder.named_modules())
    hooks = [module.register_forward_hook(watch(name)) for name, module in modules.items()]
    try:
        y = score(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    closed = {name for name, _ in seen if not isinstance(modules[name], nn.Sequential)}
    return y, [output for name, output in seen if closed.isdisjoint(_around(name))]


def _around(name: str) -> list[str]:
    """``a.b.c`` → ``a`` and ``a.b``."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _is_map(output: Tensor, inputs: Tensor) -> bool:
    """True if the output has a row for every image and the images' aspect ratio, unlike maps with channels last."""
    if output.dim() != 4 or len(output) != inputs.shape[:-3].numel() or min(output.shape[2:]) < 2:
        return False
    down, across = (whole / part for whole, part in zip(inputs.shape[-2:], output.shape[2:], strict=True))
    return max(down, across) / min(down, across) < 1.25
