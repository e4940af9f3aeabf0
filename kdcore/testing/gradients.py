"""Gradients, and steps of training, as the kit takes them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from kdcore.contracts.batch import LossContext
from kdcore.testing.case import require
from kdcore.testing.contexts import tensors

STRIDE = 0.01


def gradients(value: Tensor, ctx: LossContext) -> dict[str, Tensor]:
    """The gradients of `value` at each of the student's tensors; zeros where none arrives."""
    student = {name: x for name, x in tensors(ctx).items() if name.startswith("student.")}
    if not value.requires_grad:
        return {name: torch.zeros_like(x) for name, x in student.items()}
    found = torch.autograd.grad(value, list(student.values()), allow_unused=True, retain_graph=True)
    return {name: torch.zeros_like(x) if g is None else g for (name, x), g in zip(student.items(), found, strict=True)}


@torch.no_grad()
def descend(parameters: Iterable[nn.Parameter]) -> None:
    """A step downhill by a hundredth of the parameters' length, however steep: a factor of the loss makes no difference."""
    moving = [p for p in parameters if p.grad is not None]
    steepness = _length(p.grad for p in moving if p.grad is not None)
    if steepness == 0 or not math.isfinite(steepness):
        return
    stride = STRIDE * (_length(moving) or 1.0)
    for p in moving:
        if p.grad is not None:
            p -= (p.grad.double() / steepness * stride).to(p.dtype)


def _length(tensors: Iterable[Tensor]) -> float:
    return math.hypot(*(float(x.double().norm()) for x in tensors))


def agree(found: Tensor, wanted: Tensor, what: str, rtol: float = 1e-4, atol: float = 1e-6) -> None:
    """Fail unless two tensors hold the same numbers, up to rounding relative to the largest of them."""
    found, wanted = found.detach().cpu().double(), wanted.detach().cpu().double()
    require(found.shape == wanted.shape, f"{what}: shapes {tuple(found.shape)} and {tuple(wanted.shape)}")
    if not wanted.numel():
        return
    both = torch.isfinite(found).all() and torch.isfinite(wanted).all()
    require(both, f"{what}: not all of these are finite")
    apart, largest = float((found - wanted).abs().max()), float(wanted.abs().max())
    close = apart <= atol + rtol * largest
    shown = f"{float(found):.6g} and {float(wanted):.6g}" if wanted.numel() == 1 else f"apart by {apart:.3g} of {largest:.3g}"
    require(close, f"{what}: {shown}")
