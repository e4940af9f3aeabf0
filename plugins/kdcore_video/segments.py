"""Fewer frames out of a clip: other ones at every step of training."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from kdcore import Transform
from kdcore_video.sampling import centred


class RandomSegments(Transform):
    """Keeps one frame of each of `segments` equal stretches: a random one while training, else the middle one.

    Shapes: (B, F, C, H, W) → (B, segments, C, H, W); every clip of a batch is drawn for on its own.

    Args:
        segments: Frames that the encoder reads; the clip should hold several times as many.

    Source: Wang et al., Temporal Segment Networks (ECCV 2016), Section 3.1.
    """

    live: ClassVar[bool] = True

    def __init__(self, *, segments: Annotated[int, Ge(1)] = 8):
        super().__init__()
        self.segments = segments

    def forward(self, x: Tensor) -> Tensor:
        """The frames kept of each clip."""
        if not self.training:
            return x[:, torch.from_numpy(centred(x.shape[1], self.segments)).to(x.device)]
        edges = torch.arange(self.segments + 1, device=x.device) * x.shape[1] // self.segments
        offsets = torch.rand(len(x), self.segments, device=x.device) * (edges[1:] - edges[:-1])
        rows = torch.arange(len(x), device=x.device).unsqueeze(1)
        return x[rows, edges[:-1] + offsets.long()]
