"""Test cases for components, and the exceptions raised by checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """Options and inputs for testing a component, if the defaults do not suit it.

    Args:
        options: Options of the component, as in a recipe; or a function that returns them, given an empty folder for files.
            The function may raise `NotApplicable` if recordings or libraries are missing.
        inputs: Inputs of the component. By default, common inputs are tried. The type depends on the kind:

            - loss: mapping from tap to the shape of its activation without the batch axis; ``student/tap`` and
              ``teacher/tap`` if they differ.
            - encoder: an ``in_shape``, or a list of them.
            - fusion: a function from a number of samples to (teachers, batch).
            - transform: a signal, a tensor ``(B, …)`` or, for a join, a tuple of tensors; or a list of these.
            - schedule: a list of `kdcore.Graph`.
            - protocol: a list of `kdcore.Sample`.
            - class embedding: a list of class names.
            - dataset: the number of samples to read.
        warmup_steps: Number of training steps of a loss before its gradients are checked, if its gradient for the student is
            zero at first, such as when a parameter initialized with zero scales it. Each step counts as an epoch in
            `ctx.progress`. Default: 0.
        random_per_sample: Whether a loss draws random numbers for each sample, such as a mask. The checks
            ``permutation_invariant`` and ``weights_count_samples`` then compare means over many draws. Default: False.

    Raises:
        ValueError: If `warmup_steps` is negative.
    """

    options: Options | Callable[[Path], Options] = field(default_factory=dict)
    inputs: Any = None
    warmup_steps: int = 0
    random_per_sample: bool = False

    def __post_init__(self) -> None:
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps must be at least 0, not {self.warmup_steps}")


class ConformanceError(AssertionError):
    """Raised if a component violates its contract. The message explains the problem and how to fix it."""


class NotApplicable(Exception):  # noqa: N818 - not an error
    """Raised if a check does not apply to a component or cannot run on this machine. The message states the reason."""


def skip_unless(condition: object, reason: str) -> None:
    """Raise `NotApplicable` unless `condition` holds."""
    if not condition:
        raise NotApplicable(reason)


def require(condition: object, message: str) -> None:
    """Raise `ConformanceError` unless `condition` holds."""
    if not condition:
        raise ConformanceError(message)
