"""Synthetic recordings and batches of common kinds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdcore.contracts.modality import Signal

SAMPLES = 4


def recordings() -> list[Signal]:
    """Return an inertial sensor, a skeleton, a colour video and a depth video, as datasets return them."""
    rng = np.random.default_rng(3)
    colour = rng.integers(0, 256, (12, 24, 32, 3), dtype=np.uint8)
    depth = rng.integers(500, 4500, (12, 24, 32, 1), dtype=np.uint16)
    return [
        Signal(rng.normal(size=(50, 6)).astype(np.float32), 50.0),
        Signal(rng.normal(size=(20, 20, 3, 1)).astype(np.float32), 30.0),
        Signal(colour, 15.0),
        Signal(depth, 15.0),
    ]


def batches() -> list[Tensor]:
    """Return batches of sensor windows, skeletons, images, and clips of floats and of bytes, as pipelines return them."""
    generator = torch.Generator().manual_seed(3)
    shapes = ((6, 48), (3, 32, 20, 1), (3, 32, 32), (4, 3, 32, 32))
    floats = [torch.randn(SAMPLES, *shape, generator=generator) for shape in shapes]
    return [*floats, torch.randint(0, 256, (SAMPLES, 4, 3, 32, 32), generator=generator, dtype=torch.uint8)]


def joined() -> list[tuple[Tensor, ...]]:
    """Return inputs for joins: two sensors, and a skeleton with a sensor."""
    generator = torch.Generator().manual_seed(3)
    watch, phone, skeleton = (torch.randn(SAMPLES, *shape, generator=generator) for shape in ((3, 48), (6, 48), (3, 48, 20, 1)))
    return [(watch, phone), (skeleton, watch)]


def values(x: Any) -> Any:
    """Return the array or tensor of a signal or batch; of a tuple, the first."""
    return values(x[0]) if isinstance(x, tuple) else x.values if isinstance(x, Signal) else x


def rows(x: Any) -> int:
    """Return the number of samples in a batch."""
    return len(values(x))


def copied(x: Any) -> Any:
    """Return a copy of an input."""
    if isinstance(x, tuple):
        return tuple(map(copied, x))
    if isinstance(x, Signal):
        return replace(x, values=x.values.copy(), times=None if x.times is None else x.times.copy())
    return x.clone()


def same(x: Any, value: float) -> Any:
    """Return an input of the same shape and type filled with one value."""
    if isinstance(x, tuple):
        return tuple(same(each, value) for each in x)
    if isinstance(x, Signal):
        return x.with_values(np.full_like(x.values, value))
    return torch.full_like(x, value)
