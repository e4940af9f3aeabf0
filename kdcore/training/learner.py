"""A learner's state from stage to stage: its optimizer, its progress and its best weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from kdcore.contracts.optimizers import build_optimizer
from kdcore.contracts.training import LearningRate, Training
from kdcore.errors import TrainingError
from kdcore.training.parameter_groups import Frozen, grouped, unmatched
from kdcore.training.participants import FUSION
from kdcore.training.weight_average import WeightAverage

PLAIN = ("rates", "epochs", "steps", "best_score", "reference", "stale", "ended")
"""Fields of `Learner` that are kept in a checkpoint as they are."""


@dataclass
class Learner:
    """One learner's state, or the fusion's.

    Args:
        name: Of the participant.
        parameters: All that it trains: its network's and its losses'.
        optimizer: Of those that are not frozen.
        rates: Learning rate of each of the optimizer's parameter groups, before it changes over epochs.
        factors: Of these, as a share of the optimizer's ``lr``.
        frozen: What it does not train in its first epochs.
        scheduler: Of torch, where that sets the rate.
        average: Of its parameters, where that is evaluated in their place.
        epochs: Epochs it has had.
        steps: Optimizer steps it has had.
        best_score: Its best score on the validation split, where the best epoch is asked for.
        reference: The score that further epochs must exceed, where training stops early.
        stale: Epochs since then.
        ended: The reason why a stage that trained it ended early; empty if none did.
        best: Its weights after the best epoch.
    """

    name: str
    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer | None
    rates: list[float] = field(default_factory=list)
    factors: list[float] = field(default_factory=list)
    frozen: list[Frozen] = field(default_factory=list)
    scheduler: OneCycleLR | ReduceLROnPlateau | None = None
    average: WeightAverage | None = None
    epochs: int = 0
    steps: int = 0
    best_score: float = -math.inf
    reference: float = -math.inf
    stale: int = 0
    ended: str = ""
    best: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, modules: Sequence[nn.Module], training: Training, steps: int = 1, fused: bool = True) -> Learner:
        """A learner at its start; without an optimizer if everything in `modules` is frozen.

        Args:
            name: Of the participant.
            modules: All that it owns.
            training: How it is trained.
            steps: Optimizer steps of an epoch.
            fused: Take a fused optimizer where torch has one. Not where a gradient scaler skips steps: torch's fused SGD would
                start from momentum that it has not initialised, if the first step is skipped. Nor for divided weights, for
                which torch has fused Adam alone.

        Raises:
            TrainingError: If a pattern of a parameter group matches nothing, or the optimizer has no weight decay to change.
        """
        parameters = list(dict.fromkeys(parameter for module in modules for parameter in module.parameters()))
        trainable = [parameter for parameter in parameters if parameter.requires_grad]
        if not trainable:
            return cls(name, parameters, None)
        if nothing := unmatched(modules, training) if name != FUSION else []:
            raise TrainingError(f"{name}: parameter_groups: no trainable parameter of its encoder matches {nothing[0][2]!r}")
        groups = grouped(modules, trainable, training)
        optimizer = build_optimizer(training.optimizer, groups.optimized, fused=fused)
        if groups.decays and "weight_decay" not in optimizer.defaults:
            raise TrainingError(
                f"{name}: {groups.decays} is about weight decay, which {type(optimizer).__name__} does not have"
            )
        rates = [entry["lr"] for entry in optimizer.param_groups]
        scheduler = _scheduler(optimizer, training.learning_rate, rates, steps * training.epochs)
        average = WeightAverage(trainable, training.ema) if training.ema else None
        return cls(name, parameters, optimizer, rates, groups.factors, groups.frozen, scheduler, average)

    @property
    def rate(self) -> float:
        """Learning rate of the first parameter group that has the optimizer's ``lr``, or of the first."""
        if not self.optimizer:
            return 0.0
        return self.optimizer.param_groups[self.factors.index(1.0) if 1.0 in self.factors else 0]["lr"]

    def begin_epoch(self, training: Training) -> None:
        """Give the optimizer the learning rate of the epoch that begins, and frozen modules their mode."""
        for each in self.still_frozen:
            for module in each.modules:
                module.training = False
        if self.scheduler is not None:
            return
        factor = training.learning_rate.factor(self.epochs, training.epochs)
        for entry, rate in zip(self.optimizer.param_groups if self.optimizer else (), self.rates, strict=True):
            entry["lr"] = rate * factor

    @property
    def still_frozen(self) -> list[Frozen]:
        """The groups that are frozen in the present epoch."""
        return [each for each in self.frozen if self.epochs < each.epochs]

    def end_step(self) -> None:
        """Count an optimizer step, and let a rate that changes with every step change."""
        self.steps += 1
        if isinstance(self.scheduler, OneCycleLR) and self.steps < self.scheduler.total_steps:
            self.scheduler.step()

    def state(self) -> dict[str, Any]:
        """All but weights, as plain data for a checkpoint."""
        plain = {name: getattr(self, name) for name in PLAIN}
        scheduler = self.scheduler.state_dict() if self.scheduler else None
        return {"optimizer": self.optimizer.state_dict() if self.optimizer else None, "scheduler": scheduler, **plain}

    def tensors(self) -> dict[str, Tensor]:
        """Weights that a checkpoint needs besides the present ones."""
        found = {f"best|{self.name}|{key}": tensor for key, tensor in self.best.items()}
        if self.average:
            found |= {f"average|{self.name}|{key}": tensor for key, tensor in self.average.tensors().items()}
        return found

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Continue from a `state`, and from the `tensors` kept beside it."""
        if self.optimizer:
            self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler:
            self.scheduler.load_state_dict(state["scheduler"])
        for name in PLAIN:
            setattr(self, name, state[name])
        self.best = _under(f"best|{self.name}|", tensors)
        if self.average:
            self.average.restore(_under(f"average|{self.name}|", tensors))


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _scheduler(
    optimizer: torch.optim.Optimizer, rule: LearningRate, rates: Sequence[float], steps: int
) -> OneCycleLR | ReduceLROnPlateau | None:
    """The scheduler of torch that a rule asks for; None where a factor for each epoch does."""
    if rule.name == "one-cycle":
        return OneCycleLR(
            optimizer,
            list(rates),
            total_steps=steps,
            cycle_momentum=False,
            pct_start=rule.pct_start,
            div_factor=rule.div_factor,
            final_div_factor=rule.final_div_factor,
        )
    if rule.name == "plateau":
        mode = "max" if rule.monitor == "validation-accuracy" else "min"
        return ReduceLROnPlateau(optimizer, mode, rule.gamma, rule.patience, rule.threshold)
    return None
