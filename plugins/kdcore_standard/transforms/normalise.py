"""Z-scores with the training part's statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from kdcore import Modality, Transform


class Normalise(Transform):
    """Subtracts each channel's mean and divides by its standard deviation, both over the training part.

    The statistics are buffers: a saved student carries them.

    Args:
        channel_axis: Where channels are, counting the batch axis; 1 for (B, C, T …), 2 for clips (B, S, C, H, W).
        smallest: Standard deviations below this are taken as this, so that a silent channel stays silent.
    """

    fitted = True
    mean: Tensor
    std: Tensor

    def __init__(self, *, channel_axis: Annotated[int, Ge(1)] = 1, smallest: Annotated[float, Gt(0)] = 1e-6):
        super().__init__()
        self.channel_axis = channel_axis
        self.smallest = smallest
        self.register_buffer("mean", torch.empty(0))
        self.register_buffer("std", torch.empty(0))
        self.register_load_state_dict_pre_hook(_make_room)

    def output_spec(self, spec: Modality) -> Modality:
        """The same signal, without unit."""
        return replace(spec, units="1")

    def fit(self, x: Tensor) -> None:
        """Measure every channel of ``x``, some samples at a time so that memory-mapped data stays on disk."""
        axes = [axis for axis in range(x.ndim) if axis != self.channel_axis]
        total = square = torch.zeros((), dtype=torch.float64)
        for part in x.split(256):
            part = part.double()
            total = total + part.sum(axes)
            square = square + part.square().sum(axes)
        count = x.numel() / x.shape[self.channel_axis]
        mean = total / count
        std = (square / count - mean.square()).clamp_min(0).sqrt()
        self.mean = mean.to(self.mean)
        self.std = std.to(self.std).clamp_min(self.smallest)

    def forward(self, x: Tensor) -> Tensor:
        """Z-scores of the same shape.

        Raises:
            RuntimeError: If called before `fit`.
        """
        if not self.mean.numel():
            raise RuntimeError("normalise is used before it was fitted")
        shape = [1] * x.ndim
        shape[self.channel_axis] = -1
        return (x - self.mean.view(shape)) / self.std.view(shape)


def _make_room(module: Any, saved: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    for name in ("mean", "std"):  # their length is known only from the data, or from what was saved
        if prefix + name in saved:
            setattr(module, name, torch.empty_like(saved[prefix + name], device=module.mean.device))
