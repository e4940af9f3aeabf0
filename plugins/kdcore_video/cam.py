"""Class activation maps: where in a picture an encoder looked."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor
from torch.nn import functional as F


def class_activation(features: Tensor, weights: Tensor) -> Tensor:
    r"""How strongly each place of a feature map speaks for something, in [0, 1].

    .. math:: M = \mathrm{ReLU}\Big(\sum_c w_c A_c\Big) / \max M

    A map that nowhere speaks for it is zero everywhere.

    Args:
        features: (…, C, h, w).
        weights: (…, C): a class's row of the classifier, gradients, or a semantics-guided ω.

    Returns:
        (…, h, w).

    Source: Zhou et al., Learning Deep Features for Discriminative Localization (CVPR 2016), Eq. (2).
    """
    maps = torch.einsum("...chw,...c->...hw", features.detach(), weights.detach()).clamp(min=0)
    return maps / maps.amax((-2, -1), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)


def overlay(picture: np.ndarray, activation: Tensor, strength: Annotated[float, Ge(0), Le(1)] = 0.5) -> np.ndarray:
    """A picture with an activation map laid over it, from blue (0) to red (1).

    Args:
        picture: (H, W, 3) or (H, W, 1), uint8.
        activation: (h, w) in [0, 1]; resized bilinearly.
        strength: Share of the map's colours in the result.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    import cv2

    height, width = picture.shape[:2]
    resized = F.interpolate(activation.detach()[None, None].float(), (height, width), mode="bilinear", align_corners=False)
    heat = np.rint(255 * resized[0, 0].clamp(0, 1).cpu().numpy()).astype(np.uint8)
    colours = cv2.applyColorMap(heat, cv2.COLORMAP_JET)[..., ::-1]
    return np.rint((1 - strength) * picture + strength * colours).astype(np.uint8)
