"""Checks that losses are finite for equal, large and small outputs."""

from __future__ import annotations

import torch
from torch import Tensor

from kdcore.testing.checks import Subject, check
from kdcore.testing.contexts import Change, learning, mapped
from kdcore.testing.losses import require_finite, warmed_up

LARGE, TINY = 1e4, 1e-12


def _check_with(subject: Subject, change: Change, when: str) -> None:
    tested = warmed_up(subject)
    ctx = learning(mapped(tested.ctx, lambda name, x: change(name, x.detach())))
    require_finite(tested.value(ctx), ctx, when)


def _is_output(name: str) -> bool:
    return ".features." in name or name.endswith("logits")


@check("loss")
def finite_on_equal_outputs(subject: Subject) -> None:
    """Value and gradient are finite if all outputs are equal, as those of untrained networks nearly are."""

    def equal(name: str, x: Tensor) -> Tensor:
        return torch.full_like(x, 0.5) if _is_output(name) else x

    _check_with(subject, equal, "for equal logits and activations")


@check("loss")
def finite_on_extreme_logits(subject: Subject) -> None:
    """Value and gradient are finite for logits of 10,000, where softmax is exactly 0 and 1."""
    _check_with(subject, lambda name, x: x * LARGE if name.endswith("logits") else x, f"for logits of the order of {LARGE:g}")


@check("loss")
def finite_on_tiny_outputs(subject: Subject) -> None:
    """Value and gradient are finite for logits and activations close to zero, and for activations of zero."""
    _check_with(subject, lambda name, x: x * TINY if _is_output(name) else x, f"for outputs of the order of {TINY:g}")
    _check_with(subject, lambda name, x: x * 0 if ".features." in name else x, "for activations that are all zero")
