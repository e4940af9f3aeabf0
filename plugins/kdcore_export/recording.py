"""From a recording as a file holds it to the tensor that a student's other transforms read, inside a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdcore import KdcoreError, Modality, SampleTransform, Signal


class Recording(nn.Module):
    """Transforms of recordings, then the modality's layout: (B, T, …) as recorded → (B, …) as encoders have it.

    Args:
        steps: Modules on (B, T, …).
        modality: Whose axes are put in order.
        samples: How many samples a recording must have; None for any number.
    """

    def __init__(self, steps: Sequence[nn.Module], modality: Modality, samples: int | None):
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.order = [0, *(1 + modality.axes.index(axis) for axis in modality.layout)]
        self.samples = samples

    def forward(self, x: Tensor) -> Tensor:
        """The tensor that transforms of batches read."""
        for step in self.steps:
            x = step(x)
        return x.permute(self.order)


class Weighted(nn.Module):
    """Each new sample is a fixed weighted sum of the recorded ones: (B, T, …) → (B, T', …).

    Args:
        weights: (T', T).
    """

    weights: Tensor

    def __init__(self, weights: Tensor):
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, x: Tensor) -> Tensor:
        """The new samples, in the old ones' type."""
        mixed = torch.matmul(self.weights, x.unsqueeze(-1).flatten(2).float()).reshape(x.shape[0], -1, *x.shape[2:])
        return mixed if x.is_floating_point() else mixed.round().to(x.dtype)


def recording(
    modality: Modality,
    transforms: Sequence[SampleTransform],
    recorded: Mapping[str, Any],
    samples: int | None,
    window: float | None = None,
) -> Recording:
    """A student's transforms of recordings as a module.

    Args:
        modality: What is recorded.
        transforms: Applied to it, in order.
        recorded: ``shape``, ``dtype`` and ``rate`` of a recording.
        samples: How many samples a recording has; None for any number, if that is possible.
        window: Seconds that every recording lasts, where that is known.

    Raises:
        KdcoreError: If they cannot be put into a graph, or not without a number of samples.
    """
    modules = [transform.as_module() for transform in transforms]
    stuck = [type(transform).__name__ for transform, module in zip(transforms, modules, strict=True) if module is None]
    if not stuck:
        return Recording([module for module in modules if module is not None], modality, samples)
    rate = float(recorded.get("rate") or modality.rate or 1.0)
    samples = samples or (round(window * rate) if window else None)
    if samples is None:
        raise KdcoreError(
            f"{modality.name}: what {', '.join(stuck)} does depends on how long a recording is: fix it with --samples N"
        )
    rest = tuple(recorded.get("shape", (0, max(1, len(modality.channels))))[1:])
    weights = _by_trial(transforms, samples, rest, rate)
    if weights is None:
        names = ", ".join(type(transform).__name__ for transform in transforms)
        raise KdcoreError(
            f"{modality.name}: {names} cannot be put into a graph: not linear in time, and at least one is no module of its own"
        )
    return Recording([Weighted(weights)], modality, samples)


def _by_trial(transforms: Sequence[SampleTransform], samples: int, rest: tuple[int, ...], rate: float) -> Tensor | None:
    """The weights (T', T) by which `transforms` make new samples of old ones; None if they do something else."""

    def changed(values: np.ndarray) -> np.ndarray:
        signal = Signal(values, rate)
        for transform in transforms:
            signal = transform(signal)
        return signal.values

    noise = np.random.default_rng(0).normal(size=(samples, *rest))
    expected = changed(noise)
    if expected.shape[1:] != rest:
        return None
    impulses = np.eye(samples)
    width = int(np.prod(rest)) or 1
    columns = [changed(np.repeat(impulse, width).reshape(samples, *rest)).reshape(-1, width)[:, 0] for impulse in impulses]
    weights = np.stack(columns, axis=1)
    if weights.shape[0] != len(expected) or not np.allclose(np.tensordot(weights, noise, 1), expected, atol=1e-6):
        return None
    return torch.from_numpy(weights).float()
