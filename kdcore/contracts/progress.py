"""The position in training, and numbers that change with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge


@dataclass(frozen=True)
class Ramp:
    """A number that changes over epochs, for any option typed ``float | Ramp``.

    .. math:: v(e) = start + (stop - start)\\, s(\\min(1, \\max(0, e - after) / epochs))

    with :math:`s(u) = u` (linear) or :math:`(1 - \\cos \\pi u) / 2` (cosine).

    Args:
        start: Value in epoch 0.
        stop: Value from epoch `after` + `epochs` on.
        epochs: Length of the change; 0 switches from `start` to `stop` at once, after `after` epochs.
        shape: ``linear`` or ``cosine``.
        after: Number of epochs before the change begins.
    """

    start: float
    stop: float
    epochs: Annotated[int, Ge(0)]
    shape: Literal["linear", "cosine"] = "linear"
    after: Annotated[int, Ge(0)] = 0
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    def at(self, epoch: int) -> float:
        """Return the value in `epoch`, counted from 0."""
        if self.epochs == 0:
            return self.start if epoch < self.after else self.stop
        u = min(1.0, max(0, epoch - self.after) / self.epochs)
        return self.start + (self.stop - self.start) * (u if self.shape == "linear" else (1 - math.cos(math.pi * u)) / 2)


@dataclass(frozen=True)
class Progress:
    """The position in training.

    Args:
        stage: Name of the stage.
        epoch: Epochs that these learners have completed, over all stages.
        step: Optimizer steps that these learners have completed.
        epochs: Epochs that these learners train for in total.
    """

    stage: str = ""
    epoch: int = 0
    step: int = 0
    epochs: int = 1

    def at(self, value: float | Ramp) -> float:
        """Return `value` itself, or the current value of a ramp."""
        return value.at(self.epoch) if isinstance(value, Ramp) else value
