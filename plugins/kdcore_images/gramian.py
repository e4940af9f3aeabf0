"""The Gramian angular field: a time series as an image."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional as F

from kdcore import Modality, Transform


class GramianAngularField(Transform):
    r"""Convert every axis of a series to an image of sums or differences of angles between instants.

    Each axis is scaled to :math:`\tilde x \in [-1, 1]` and read as the cosine of an angle :math:`\theta`; then

    .. math::
        \mathrm{GASF}_{ij} &= \cos(\theta_i + \theta_j) = \tilde x_i \tilde x_j - s_i s_j \\
        \mathrm{GADF}_{ij} &= \sin(\theta_i - \theta_j) = s_i \tilde x_j - \tilde x_i s_j \\
        s &= \sqrt{1 - \tilde x^2} = 2 \sqrt{(\max x - x)(x - \min x)} / (\max x - \min x)

    This form needs no trigonometry and no guard against rounding. A constant axis has no angle: its GASF is 1 and its GADF
    is 0 everywhere.

    Shapes: (B, C, T) → (B, C, size, size), twice as many channels with ``both``.

    Args:
        size: Pixels per side; None keeps the T × T of the field.
        method: ``gasf`` (sums), ``gadf`` (differences), or ``both``, the sums' channels first: the differences encode the
            order of time, which the symmetric sums do not.
        resize: What is resized to `size`: the ``image``, as published, or the ``series`` beforehand (averaged over equal
            stretches, interpolated where it is shorter), which saves time and memory on long series.
        interpolation: How an image is resized; antialiased where it shrinks.
        scale: Whether each ``axis`` has its own minimum and maximum, or the axes of a sample share them (``joint``).
        values: ``field`` in [-1, 1], or ``unit``: every axis of every sample stretched to [0, 1].
        variant: ``official`` gives the published code's GADF, the negative of ``paper``'s.

    Source: Liu et al., Semantics-aware Adaptive Knowledge Distillation (TIP 2021, https://arxiv.org/abs/2009.00210), Eqs
    (1)-(3).
    """

    def __init__(
        self,
        *,
        size: Annotated[int, Ge(2)] | None = 64,
        method: Literal["gasf", "gadf", "both"] = "gasf",
        resize: Literal["image", "series"] = "image",
        interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear",
        scale: Literal["axis", "joint"] = "axis",
        values: Literal["field", "unit"] = "field",
        variant: Literal["paper", "official"] = "paper",
    ):
        super().__init__()
        self.size = size
        self.method = method
        self.resize = resize
        self.interpolation = interpolation
        self.scale = scale
        self.values = values
        self.sign = -1 if variant == "official" else 1

    def output_spec(self, spec: Modality) -> Modality:
        """An image, whose height and width both are time."""
        names = spec.channels
        if self.method == "both":
            names = (*(f"gasf-{name}" for name in names), *(f"gadf-{name}" for name in names))
        axes = ("channel", "height", "width")
        return replace(spec, axes=axes, layout=axes, units="1", rate=None, channels=names)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C or 2 C, size, size) of series (B, C, T)."""
        if self.size and self.resize == "series":
            x = resample(x, self.size)
        cosine, sine = self._angles(x)
        sums = [(cosine, cosine, sine, sine)]
        differences = [(sine, cosine, cosine, sine) if self.sign > 0 else (cosine, sine, sine, cosine)]
        field = _fields([*(sums if self.method != "gadf" else ()), *(differences if self.method != "gasf" else ())])
        if self.size and self.size != field.shape[-1]:
            field = self._resized(field, self.size)
        return stretch(field) if self.values == "unit" else field

    def _angles(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of every instant's angle, each (B, C, T)."""
        axes = (-1,) if self.scale == "axis" else (-2, -1)
        above, below = x.amax(axes, keepdim=True) - x, x - x.amin(axes, keepdim=True)
        extent = above.amax(axes, keepdim=True)
        extent = torch.where(extent > 0, extent, torch.ones_like(extent))
        above, below = above / extent, below / extent
        return 1 - 2 * above, 2 * (above * below).sqrt()

    def _resized(self, field: Tensor, size: int) -> Tensor:
        smooth = self.interpolation != "nearest"
        return F.interpolate(field, (size, size), mode=self.interpolation, antialias=smooth)


def resample(x: Tensor, size: int) -> Tensor:
    """Series (B, C, T) with `size` instants: averages where T is larger, linear interpolation where it is smaller."""
    if x.shape[-1] >= size:
        return F.adaptive_avg_pool1d(x, size)
    return F.interpolate(x, size, mode="linear", align_corners=True)


def stretch(images: Tensor) -> Tensor:
    """Images (B, C, H, W), each channel stretched to [0, 1]; a constant one becomes 0."""
    low, high = images.amin((-2, -1), keepdim=True), images.amax((-2, -1), keepdim=True)
    return (images - low) / torch.where(high > low, high - low, torch.ones_like(high))


Products = tuple[Tensor, Tensor, Tensor, Tensor]
"""a, b, c and d, each (B, C, T), of a field :math:`a_i b_j - c_i d_j`."""


def _fields(products: list[Products]) -> Tensor:
    """The fields of `products`, side by side as channels, (B, C · len(products), T, T).

    On a CPU they are made sample by sample, so that the intermediate results stay in the processor's cache and every pixel is
    written to memory once; the numbers are the same.
    """
    first = products[0][0]
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.onnx.is_in_onnx_export()
    if traced or first.device.type != "cpu" or (torch.is_grad_enabled() and first.requires_grad):
        fields = [_outer(a, b) - _outer(c, d) for a, b, c, d in products]
        return torch.cat(fields, dim=1) if len(fields) > 1 else fields[0]
    batch, channels, length = first.shape
    found = first.new_empty(batch, len(products), channels, length, length)
    subtracted = first.new_empty(channels, length, length)
    for number, (a, b, c, d) in enumerate(products):
        for field, *factors in zip(found[:, number], a, b, c, d, strict=True):
            left, top, left_too, top_too = factors
            torch.mul(left.unsqueeze(-1), top.unsqueeze(-2), out=field)
            torch.mul(left_too.unsqueeze(-1), top_too.unsqueeze(-2), out=subtracted)
            field.sub_(subtracted)
    return found.flatten(1, 2)


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return a.unsqueeze(-1) * b.unsqueeze(-2)
