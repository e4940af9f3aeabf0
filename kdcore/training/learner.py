"""A learner's state from stage to stage: its optimizer, its progress and its best weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kdcore.contracts.optimizers import build_optimizer
from kdcore.contracts.schedule import Training


@dataclass
class Learner:
    """One learner's state, or the fusion's.

    Args:
        name: Of the participant.
        parameters: All that it trains: its network's and its losses'.
        optimizer: Of those that are not frozen.
        rates: Learning rate of each of the optimizer's parameter groups, before it changes over epochs.
        epochs: Epochs it has had.
        steps: Optimizer steps it has had.
        best_score: Its best accuracy on the validation split, where the best epoch is asked for.
        best: Its weights after that epoch.
    """

    name: str
    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer | None
    rates: list[float] = field(default_factory=list)
    epochs: int = 0
    steps: int = 0
    best_score: float = -1.0
    best: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, modules: Sequence[nn.Module], training: Training) -> Learner:
        """A learner at its start; without an optimizer if everything in `modules` is frozen."""
        parameters = list(dict.fromkeys(parameter for module in modules for parameter in module.parameters()))
        trainable = [parameter for parameter in parameters if parameter.requires_grad]
        optimizer = build_optimizer(training.optimizer, trainable) if trainable else None
        rates = [entry["lr"] for entry in optimizer.param_groups] if optimizer else []
        return cls(name, parameters, optimizer, rates)

    @property
    def rate(self) -> float:
        """Learning rate of the first parameter group."""
        return self.optimizer.param_groups[0]["lr"] if self.optimizer else 0.0

    def set_rate(self, training: Training) -> None:
        """Give the optimizer the learning rate of the epoch that begins."""
        factor = training.learning_rate.factor(self.epochs, training.epochs)
        for entry, rate in zip(self.optimizer.param_groups if self.optimizer else (), self.rates, strict=True):
            entry["lr"] = rate * factor

    def state(self) -> dict[str, Any]:
        """All but `best`, as plain data for a checkpoint."""
        plain = {name: getattr(self, name) for name in ("rates", "epochs", "steps", "best_score")}
        return {"optimizer": self.optimizer.state_dict() if self.optimizer else None, **plain}

    def restore(self, state: Mapping[str, Any], best: Mapping[str, Tensor]) -> None:
        """Continue from a `state`, and from the best weights kept beside it."""
        if self.optimizer:
            self.optimizer.load_state_dict(state["optimizer"])
        self.rates, self.epochs, self.steps = state["rates"], state["epochs"], state["steps"]
        self.best_score, self.best = state["best_score"], dict(best)
