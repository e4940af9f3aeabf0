"""Learners that train together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kdcore.contracts.schedule import Stage, Training


def group_name(stage: Stage) -> str:
    """What the learners of `stage` are called together."""
    return "+".join(stage.learners)


@dataclass
class Group:
    """What learners that train together carry from stage to stage.

    Args:
        optimizer: Of all their parameters.
        rates: Learning rate of each of the optimizer's parameter groups, before it changes over epochs.
        epochs: Epochs they have had.
        steps: Optimizer steps they have had.
        best_score: Their best accuracy on the validation part, where the best epoch is asked for.
        best: Their weights after that epoch.
    """

    optimizer: torch.optim.Optimizer
    rates: list[float]
    epochs: int = 0
    steps: int = 0
    best_score: float = -1.0
    best: dict[str, Tensor] = field(default_factory=dict)

    def set_rate(self, training: Training) -> None:
        """Give the optimizer the learning rate of the epoch that begins."""
        factor = training.learning_rate.factor(self.epochs, training.epochs)
        for entry, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            entry["lr"] = rate * factor

    def state(self) -> dict[str, Any]:
        """All but `best`, as plain data for a checkpoint."""
        plain = {name: getattr(self, name) for name in ("rates", "epochs", "steps", "best_score")}
        return {"optimizer": self.optimizer.state_dict(), **plain}

    def restore(self, state: Mapping[str, Any], best: Mapping[str, Tensor]) -> None:
        """Go on from a `state`, and from the best weights kept beside it."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.rates, self.epochs, self.steps = state["rates"], state["epochs"], state["steps"]
        self.best_score, self.best = state["best_score"], dict(best)
