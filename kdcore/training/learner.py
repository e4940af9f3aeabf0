"""The training state of a learner, kept across stages: optimizer, progress and best weights."""

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
from kdcore.training.parameter_groups import LOSSES, Frozen, grouped, unmatched
from kdcore.training.participants import FUSION
from kdcore.training.weight_average import WeightAverage

PLAIN = ("rates", "epochs", "steps", "best_score", "reference", "stale", "ended")
"""Fields of `Learner` that a checkpoint stores unchanged."""


@dataclass
class Learner:
    """The training state of one learner, or of the fusion.

    Args:
        name: Name of the participant.
        parameters: Parameters of its network and its losses, frozen ones included.
        optimizer: Optimizer of the trainable parameters; None if there are none.
        rates: Initial learning rate of each parameter group.
        factors: Learning rate of each parameter group, as a factor on the optimizer's ``lr``.
        frozen: Parameter groups that are frozen in the first epochs.
        scheduler: PyTorch scheduler; None if the learning rate is set once per epoch.
        average: Exponential moving average of its parameters, if one is configured.
        epochs: Epochs trained so far.
        steps: Optimizer steps so far.
        best_score: Best validation score so far, with ``select: best``.
        reference: Score that an epoch must exceed, with early stopping.
        stale: Epochs since `reference` was last exceeded.
        ended: Reason why a stage of this learner ended early; empty if none did.
        best: Weights after the best epoch.
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
        """Create a learner with a new optimizer; without one if all parameters of `modules` are frozen.

        Args:
            name: Name of the participant.
            modules: Its network and losses.
            training: Optimizer, learning rate, epochs and other options of its training.
            steps: Optimizer steps per epoch.
            fused: Use a fused optimizer where PyTorch has one. Must be False with a gradient scaler, because fused SGD reads
                uninitialised momentum if the scaler skips the first step; and with sharded weights, which only fused Adam
                supports.

        Raises:
            TrainingError: If a pattern of a parameter group matches nothing, or weight decay is configured for an optimizer
                without it.
        """
        parameters = list(dict.fromkeys(parameter for module in modules for parameter in module.parameters()))
        trainable = [parameter for parameter in parameters if parameter.requires_grad]
        if not trainable:
            return cls(name, parameters, None)
        unused = [pattern for *_, pattern in unmatched(modules, training) if not pattern.startswith(LOSSES)]
        if unused and name != FUSION:  # losses may be absent: the baseline has no terms that distil
            raise TrainingError(f"{name}: parameter_groups: no trainable parameter of its encoder matches {unused[0]!r}")
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
        """Current learning rate of the first parameter group with factor 1, or of the first group."""
        if not self.optimizer:
            return 0.0
        return self.optimizer.param_groups[self.factors.index(1.0) if 1.0 in self.factors else 0]["lr"]

    def begin_epoch(self, training: Training) -> None:
        """Set the learning rate for the next epoch, and put frozen modules into evaluation mode."""
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
        """The parameter groups that are frozen in the current epoch."""
        return [each for each in self.frozen if self.epochs < each.epochs]

    def end_step(self) -> None:
        """Count an optimizer step, and step a scheduler that works per step."""
        self.steps += 1
        if isinstance(self.scheduler, OneCycleLR) and self.steps < self.scheduler.total_steps:
            self.scheduler.step()

    def state(self) -> dict[str, Any]:
        """The state without weights, as plain data for a checkpoint."""
        plain = {name: getattr(self, name) for name in PLAIN}
        scheduler = self.scheduler.state_dict() if self.scheduler else None
        return {"optimizer": self.optimizer.state_dict() if self.optimizer else None, "scheduler": scheduler, **plain}

    def tensors(self) -> dict[str, Tensor]:
        """Best and averaged weights, which a checkpoint stores besides the current ones."""
        tensors = {f"best|{self.name}|{key}": tensor for key, tensor in self.best.items()}
        if self.average:
            tensors |= {f"average|{self.name}|{key}": tensor for key, tensor in self.average.tensors().items()}
        return tensors

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state` and `tensors` returned."""
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
    """The PyTorch scheduler of a rule; None for rules that set a factor once per epoch."""
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
