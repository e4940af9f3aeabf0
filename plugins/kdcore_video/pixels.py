"""Pixels as the numbers an encoder reads."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kdcore import Modality, Transform


class Pixels(Transform):
    """Brings pixels to [0, 1] and standardises each channel: ``(x − mean) / std``.

    Integer pixels are divided by the largest value of their type (255 for uint8); floating ones are taken to lie in
    [0, 1] already. Shapes: (B, …, C, H, W) → the same, floating point.

    Args:
        mean: Of each channel, or one for all. Those of ImageNet, unless given.
        std: Of each channel, or one for all.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        mean: tuple[float, ...] = (0.485, 0.456, 0.406),
        std: tuple[float, ...] = (0.229, 0.224, 0.225),
    ):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def output_spec(self, spec: Modality) -> Modality:
        """Numbers without unit."""
        return replace(spec, units="1")

    def forward(self, x: Tensor) -> Tensor:
        """Standardised pixels.

        Raises:
            ValueError: If the pictures have another number of channels than `mean` or `std`.
        """
        if not x.is_floating_point():
            x = x.to(self.mean.dtype) / torch.iinfo(x.dtype).max
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, x.shape[-3]):
                raise ValueError(f"pixels: {name} has {len(values)} entries, the pictures have {x.shape[-3]} channels")
        return (x - self.mean) / self.std


class DepthRange(Transform):
    """Maps depth in millimetres onto [0, 1]; what was not measured (0 mm) becomes `missing`.

    .. math:: y = \\min(1, \\max(0, (x - near) / (far - near)))

    Args:
        near: Distance that becomes 0, in millimetres.
        far: Distance that becomes 1, in millimetres.
        missing: What a pixel without measurement becomes.
        spec: What is known of the input.

    Raises:
        ValueError: If `near` is not less than `far`, or the input is known to be no millimetres.
    """

    def __init__(self, *, near: float = 500.0, far: float = 4500.0, missing: float = 0.0, spec: Modality | None = None):
        super().__init__()
        if spec and spec.units not in ("", "mm"):
            raise ValueError(f"depth-range reads depth in mm, {spec.name} is in {spec.units!r}")
        if not near < far:
            raise ValueError(f"near ({near} mm) must be less than far ({far} mm)")
        self.near = near
        self.far = far
        self.missing = missing

    def output_spec(self, spec: Modality) -> Modality:
        """Numbers without unit."""
        return replace(spec, units="1")

    def forward(self, x: Tensor) -> Tensor:
        """Depth (B, …) in [0, 1], floating point."""
        depth = x if x.is_floating_point() else x.to(torch.get_default_dtype())
        scaled = ((depth - self.near) / (self.far - self.near)).clamp(0, 1)
        return torch.where(depth == 0, torch.full_like(scaled, self.missing), scaled)
