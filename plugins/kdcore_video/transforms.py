"""Transforms and augmentations of clips."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor
from torch.nn import functional as F

from kdcore import Modality, Transform
from kdcore_video.clip import centred


class RandomSegments(Transform):
    """Keep one frame of each of `segments` equal stretches: a random one while training, else the middle one.

    Shapes: (B, F, C, H, W) → (B, segments, C, H, W); frames are drawn independently for each clip.

    Args:
        segments: Frames that the encoder reads; the clip should hold several times as many.

    Source: Wang et al., Temporal Segment Networks (ECCV 2016, https://arxiv.org/abs/1608.00859), Section 3.1.
    """

    per_batch: ClassVar[bool] = True

    def __init__(self, *, segments: Annotated[int, Ge(1)] = 8):
        super().__init__()
        self.segments = segments

    def forward(self, x: Tensor) -> Tensor:
        """Return the frames kept of each clip."""
        if not self.training:
            return x[:, torch.from_numpy(centred(x.shape[1], self.segments)).to(x.device)]
        edges = torch.arange(self.segments + 1, device=x.device) * x.shape[1] // self.segments
        offsets = torch.rand(len(x), self.segments, device=x.device) * (edges[1:] - edges[:-1])
        rows = torch.arange(len(x), device=x.device).unsqueeze(1)
        return x[rows, edges[:-1] + offsets.long()]


CORNERS = ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2), (0, 2), (2, 0), (2, 4), (4, 2), (1, 1), (1, 3), (3, 1), (3, 3))
"""Positions of a crop, (top, left) in quarters of the space that the crop leaves free."""


class MultiScaleCrop(Transform):
    """Crop every frame: at a random size, shape and place in training, else to the middle square.

    While training, height and width are `scales` of the short side, at most one step of the list apart, and the crop lies at
    one of thirteen places; all frames of a clip are cut alike, then resized. In evaluation the middle `size` × `size`
    pixels are taken as they are. Shapes: (B, S, C, H, W) → (B, S, C, size, size), pixels of the same type.

    Args:
        size: Side length in pixels; None for the short side of the frames.
        scales: Sides of crops relative to the short side.

    Source: Wang et al., Temporal Segment Networks (ECCV 2016, https://arxiv.org/abs/1608.00859), Section 3.2.
    """

    per_batch: ClassVar[bool] = True

    def __init__(
        self,
        *,
        size: Annotated[int, Ge(1)] | None = None,
        scales: tuple[Annotated[float, Gt(0), Le(1)], ...] = (1.0, 0.875, 0.75, 0.66),
    ):
        super().__init__()
        self.size = size
        steps = range(len(scales))
        pairs = [(scales[i], scales[j]) for i in steps for j in steps if abs(i - j) <= 1]
        self.register_buffer("pairs", torch.tensor(pairs), persistent=False)
        self.register_buffer("places", torch.tensor(CORNERS) / 4, persistent=False)

    pairs: Tensor
    places: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return cropped clips.

        Raises:
            ValueError: If the frames are smaller than `size`.
        """
        height, width = x.shape[-2:]
        short = min(height, width)
        size = self.size or short
        if short < size:
            raise ValueError(f"multi-scale-crop: frames of {height} x {width} pixels are smaller than {size}")
        if not self.training:
            top, left = (height - size) // 2, (width - size) // 2
            return x[..., top : top + size, left : left + size]
        return self._sampled(x, size, self._draw(len(x), height, width))

    def _draw(self, count: int, height: int, width: int) -> Tensor:
        """Affine maps (count, 2, 3) from a crop's coordinates to its frame's, both in [-1, 1]."""
        pairs = self.pairs[torch.randint(len(self.pairs), (count,), device=self.pairs.device)]
        places = self.places[torch.randint(len(self.places), (count,), device=self.places.device)]
        sides = pairs * min(height, width) / torch.tensor([height, width], device=pairs.device)
        centres = (2 * places - 1) * (1 - sides)
        return torch.stack((_row(sides[:, 1], centres[:, 1], 0), _row(sides[:, 0], centres[:, 0], 1)), dim=1)

    @staticmethod
    def _sampled(x: Tensor, size: int, maps: Tensor) -> Tensor:
        stacked = x.flatten(1, 2)
        pixels = stacked if x.is_floating_point() else stacked.to(maps.dtype)
        grid = F.affine_grid(maps.to(pixels.dtype), [len(x), 1, size, size], align_corners=False)
        cut = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
        return (cut if x.is_floating_point() else cut.round().to(x.dtype)).unflatten(1, x.shape[1:3])


def _row(side: Tensor, centre: Tensor, axis: int) -> Tensor:
    zero = torch.zeros_like(side)
    return torch.stack((zero, side, centre) if axis else (side, zero, centre), dim=1)


class Flip(Transform):
    """Mirror whole clips left to right. Not for classes that depend on the side, such as ``swipe left``.

    Shapes: (B, …, C, H, W) → the same.

    Args:
        probability: Probability of flipping each clip.
        flow: Whether channels alternate between x and y flow; then mirrored x flow also changes its sign
            (``255 − value`` where flow is stored as uint8).
    """

    augmentation: ClassVar[bool] = True

    def __init__(self, *, probability: Annotated[float, Ge(0), Le(1)] = 0.5, flow: bool = False):
        super().__init__()
        self.probability = probability
        self.flow = flow

    def forward(self, x: Tensor) -> Tensor:
        """Return clips, some of them mirrored."""
        chosen = torch.rand(len(x), device=x.device) < self.probability
        mirrored = x.flip(-1)
        if self.flow:
            sideways = mirrored[..., 0::2, :, :]
            mirrored[..., 0::2, :, :] = -sideways if x.is_floating_point() else 255 - sideways
        return torch.where(chosen.view(-1, *[1] * (x.ndim - 1)), mirrored, x)


class RgbDifference(Transform):
    r"""Each frame minus the one before it.

    .. math:: y_s = gain\, (x_{s+1} - x_s)

    Shapes: (B, S, C, H, W) → (B, S - 1, C, H, W), or (B, S - 1, 2·C, H, W) with `frames`; stands after ``pixels`` or
    ``depth-range``, which make pixels floating.

    Args:
        gain: Factor that brings the small differences to the size an encoder expects.
        frames: Keep the later frame of each difference, too, as further channels.

    Source: Wang et al., Temporal Segment Networks (ECCV 2016, https://arxiv.org/abs/1608.00859), section 3.2.
    """

    def __init__(self, *, gain: Annotated[float, Gt(0)] = 1.0, frames: bool = False):
        super().__init__()
        self.gain = gain
        self.frames = frames

    def output_spec(self, spec: Modality) -> Modality:
        """Return the channels of the differences, then those of the frames, if these are kept."""
        if not self.frames:
            return spec
        return replace(spec, channels=(*(f"change of {name}" for name in spec.channels), *spec.channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return differences of the clip's neighbouring frames.

        Raises:
            ValueError: If the clip has one frame, or pixels are still integers.
        """
        if x.shape[1] < 2 or not x.is_floating_point():
            raise ValueError(
                f"rgb-difference needs two or more frames of floating-point pixels, not {tuple(x.shape)} {x.dtype}"
            )
        change = self.gain * (x[:, 1:] - x[:, :-1])
        return torch.cat((change, x[:, 1:]), dim=2) if self.frames else change


class Pixels(Transform):
    """Scale pixels to [0, 1] and standardise each channel: ``(x − mean) / std``.

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
        """Return the spec without a unit."""
        return replace(spec, units="1")

    def forward(self, x: Tensor) -> Tensor:
        """Return standardised pixels.

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
    """Map depth in millimetres to [0, 1]; pixels without a measurement (0 mm) become `missing`.

    .. math:: y = \\min(1, \\max(0, (x - near) / (far - near)))

    Args:
        near: Distance that becomes 0, in millimetres.
        far: Distance that becomes 1, in millimetres.
        missing: Value of a pixel without a measurement.
        spec: Description of the input; filled in by kdcore.

    Raises:
        ValueError: If `near` is not less than `far`, or the input is not in millimetres.
    """

    def __init__(self, *, near: float = 500.0, far: float = 4500.0, missing: float = 0.0, spec: Modality | None = None):
        super().__init__()
        if spec and spec.units not in ("", "mm"):
            raise ValueError(f"depth-range reads depth in mm, but {spec.name} is in {spec.units!r}")
        if not near < far:
            raise ValueError(f"near ({near} mm) must be less than far ({far} mm)")
        self.near = near
        self.far = far
        self.missing = missing

    def output_spec(self, spec: Modality) -> Modality:
        """Return the spec without a unit."""
        return replace(spec, units="1")

    def forward(self, x: Tensor) -> Tensor:
        """Return depth (B, …) in [0, 1], floating point."""
        depth = x if x.is_floating_point() else x.to(torch.get_default_dtype())
        scaled = ((depth - self.near) / (self.far - self.near)).clamp(0, 1)
        return torch.where(depth == 0, torch.full_like(scaled, self.missing), scaled)
