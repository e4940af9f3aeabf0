"""Gradients, training steps and comparisons for checks."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from kdcore.contracts.batch import LossContext
from kdcore.testing.case import require
from kdcore.testing.loss_inputs import tensors

STRIDE = 0.01


def gradients(value: Tensor, ctx: LossContext) -> dict[str, Tensor]:
    """Return the gradients of `value` with respect to the student's tensors by name; zeros if there is no gradient."""
    student = {name: x for name, x in tensors(ctx).items() if name.startswith("student.")}
    if not value.requires_grad:
        return {name: torch.zeros_like(x) for name, x in student.items()}
    received = torch.autograd.grad(value, list(student.values()), allow_unused=True, retain_graph=True)
    return {name: torch.zeros_like(x) if g is None else g for (name, x), g in zip(student.items(), received, strict=True)}


@torch.no_grad()
def descend(parameters: Iterable[nn.Parameter]) -> None:
    """Take a gradient step of a hundredth of the parameters' norm, so that the scale of the loss does not matter."""
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


def agree(actual: Tensor, expected: Tensor, what: str, rtol: float = 1e-4, atol: float = 1e-6) -> None:
    """Raise an error unless two tensors are equal up to a tolerance relative to the largest value."""
    actual, expected = actual.detach().cpu().double(), expected.detach().cpu().double()
    require(actual.shape == expected.shape, f"{what}: shapes {tuple(actual.shape)} and {tuple(expected.shape)}")
    if not expected.numel():
        return
    finite = torch.isfinite(actual).all() and torch.isfinite(expected).all()
    require(finite, f"{what}: some values are not finite")
    difference, largest = float((actual - expected).abs().max()), float(expected.abs().max())
    equal = difference <= atol + rtol * largest
    details = (
        f"{float(actual):.6g} and {float(expected):.6g}"
        if expected.numel() == 1
        else f"the largest difference is {difference:.3g}, the largest value {largest:.3g}"
    )
    require(equal, f"{what}: {details}")
