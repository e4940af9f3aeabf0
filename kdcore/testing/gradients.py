"""Gradients, and steps of training, as the kit takes them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kdcore.contracts.batch import LossContext
from kdcore.testing.case import require
from kdcore.testing.contexts import tensors


def gradients(value: Tensor, ctx: LossContext) -> dict[str, Tensor]:
    """What `value` sends to each of the student's tensors; zeros where nothing arrives."""
    student = {name: x for name, x in tensors(ctx).items() if name.startswith("student.")}
    if not value.requires_grad:
        return {name: torch.zeros_like(x) for name, x in student.items()}
    found = torch.autograd.grad(value, list(student.values()), allow_unused=True, retain_graph=True)
    return {name: torch.zeros_like(x) if g is None else g for (name, x), g in zip(student.items(), found, strict=True)}


def plain_tensors(module: nn.Module) -> list[str]:
    """Tensors and modules that a module holds where neither `state_dict` nor `to` nor an optimizer sees them."""
    return [
        f"{path}.{name}" if path else name
        for path, each in module.named_modules()
        for name, value in vars(each).items()
        if not (name.startswith("_") and name in _OWN) and _hides_tensor(value)
    ]


_OWN = frozenset(vars(nn.Module()))


def _hides_tensor(value: object) -> bool:
    if isinstance(value, Tensor | nn.Module):
        return True
    if isinstance(value, Mapping):
        return any(map(_hides_tensor, value.values()))
    return isinstance(value, list | tuple | set) and any(map(_hides_tensor, value))


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
