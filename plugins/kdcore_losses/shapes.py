"""How activations of unlike shapes are brought together.

An activation is (B, C, *positions): a vector has no positions, a sequence has (T,), a graph (T, V), an image (H, W), a
volume (T, H, W). Persons or frames may be folded into the batch, sample by sample: (B·n, C, …).

1. Folded persons or frames are averaged, so that there is one activation per sample (`per_sample`).
2. Where one side has more position axes, it is averaged over its last ones until both have as many: the first axis,
   which stays longest, is time in sequences, graphs and volumes, and in images made of signals.
3. Each axis of the longer side is average-pooled to the length of the shorter one (`same_positions`).

Losses that compare samples with each other need only the first step, and flatten the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor


def per_sample(x: Tensor, batch: int) -> Tensor:
    """``x`` of shape (B·n, C, …) averaged to (B, C, …).

    Raises:
        ValueError: If ``x`` is no batch of feature vectors or maps of `batch` samples.
    """
    if x.ndim < 2 or x.shape[0] % batch:
        raise ValueError(f"an activation of shape {tuple(x.shape)} cannot be told apart into {batch} samples")
    return x if x.shape[0] == batch else x.unflatten(0, (batch, -1)).mean(dim=1)


def same_positions(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both activations at the coarser positions of the two, channels as they were."""
    axes = min(student.ndim, teacher.ndim) - 2
    student, teacher = (x.flatten(2 + axes).mean(dim=-1) if x.ndim > 2 + axes else x for x in (student, teacher))
    for axis in range(2, 2 + axes):
        length = min(student.shape[axis], teacher.shape[axis])
        student, teacher = pool(student, axis, length), pool(teacher, axis, length)
    return student, teacher


def pool(x: Tensor, axis: int, length: int) -> Tensor:
    """Adaptive average pooling of one axis.

    It is a product with a matrix, for PyTorch's own pooling has no deterministic gradient on CUDA.
    """
    size = x.shape[axis]
    if size == length:
        return x
    bins = torch.arange(length, device=x.device)
    first, last = (bins * size) // length, ((bins + 1) * size + length - 1) // length
    positions = torch.arange(size, device=x.device)[:, None]
    inside = ((positions >= first) & (positions < last)).to(x.dtype)
    return (x.movedim(axis, -1) @ (inside / inside.sum(dim=0))).movedim(-1, axis)
