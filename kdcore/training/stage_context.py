"""The state of the current stage: its learners, its objective, and the loss values of the epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from kdcore.contracts.training import Training
from kdcore.errors import TrainingError
from kdcore.recipe.graph import StagePlan
from kdcore.training.epoch_means import NO_SAMPLES
from kdcore.training.learner import Learner
from kdcore.training.participants import FUSION
from kdcore.training.step import StageStep

LONGEST = 4096
"""Number of scalar tensors collected before they are stacked into one tensor."""


@dataclass
class StageContext:
    """The state of the current stage.

    Args:
        ordinal: Index of the stage.
        stage: Learners, sources and training options of the stage.
        learners: Its learners, and the fusion if it is trained.
        step: Its objective.
        module: Called to compute the loss: ``step.forward``, or the DDP wrapper of `step`.
        rows: (n,) int64, the training rows.
        batch_size: Rows per step, summed over all processes.
        before: Epochs of earlier stages with the same seed of the sample order. Equal in both arms, so orders are, too.
        last: Learners that no later stage trains.
        epoch: Index of the current epoch in this stage, from 0.
        index: Index of the current batch in this epoch, from 0.
        accumulated: Number of batches accumulated for the next optimizer step.
        done: Finished epochs of this stage.
        ended: Reason why the stage ends early; empty if it does not.
        ended_by_callback: Whether a callback gave that reason.
        earlier: Stacked values of earlier steps, as in `values`; None if there are none.
        recorded: Scalar tensors of the later steps, `terms + 1` per step.
    """

    ordinal: int
    stage: StagePlan
    learners: list[Learner]
    step: StageStep
    module: Callable[[Tensor, Tensor], tuple[Tensor, Sequence[Tensor]]]
    rows: Tensor
    batch_size: int
    before: int
    last: frozenset[str] = frozenset()
    epoch: int = 0
    index: int = 0
    accumulated: int = 0
    done: int = 0
    ended: str = ""
    ended_by_callback: bool = False
    earlier: Tensor | None = None
    recorded: list[Tensor] = field(default_factory=list)

    def record(self, values: Sequence[Tensor], total: Tensor) -> None:
        """Keep the values of a step. No kernel is launched, except when `LONGEST` scalars are stacked."""
        self.recorded += (*values, total)
        if len(self.recorded) > LONGEST:
            self.set_values(self.values)

    def discard_last(self) -> None:
        """Replace the values of the last step by NaN."""
        values = self.values.clone()
        values[-1] = torch.nan
        self.set_values(values)

    def set_values(self, values: Tensor | None) -> None:
        """Set the values of the epoch's earlier steps; None for none."""
        self.earlier, self.recorded = values, []

    @property
    def values(self) -> Tensor:
        """(steps so far, terms + 1) float32: the value of each term at each step of this epoch, then their weighted sum."""
        device, width = self.rows.device, len(self.step.names) + 1
        values = torch.zeros(0, width, device=device) if self.earlier is None else self.earlier
        if self.recorded:
            values = torch.cat([values, torch.stack(self.recorded).to(device, torch.float32).view(-1, width)])
        return values

    @cached_property
    def steps(self) -> int:
        """Batches per epoch; an incomplete last batch is dropped."""
        return len(self.rows) // self.batch_size

    @property
    def optimizer_steps(self) -> int:
        """Optimizer steps per epoch."""
        return optimizer_steps(self.steps, self.stage.accumulate)

    def completes_step(self, index: int) -> bool:
        """True if batch `index` of an epoch is the last one of an optimizer step."""
        return (index + 1) % self.stage.accumulate == 0 or index + 1 == self.steps

    def training(self, learner: str) -> Training:
        """Training options of a learner; the fusion has those of its teachers."""
        return self.stage.training[self.step.networks.fused[0] if learner == FUSION else learner]

    @property
    def names(self) -> list[str]:
        """Metric names of the columns of `values`."""
        return [*(f"train/{name}" for name in self.step.names), f"train/{' and '.join(self.stage.learners)}/total"]

    @property
    def by_name(self) -> dict[str, Learner]:
        """Name → learner."""
        return {learner.name: learner for learner in self.learners}

    @property
    def first(self) -> Learner:
        """The first learner; the weighted sum of all terms is recorded at its steps and epochs."""
        return self.learners[0]

    def refuse_infinite(self, values: Tensor) -> None:
        """Check that all values of an epoch are finite.

        Raises:
            TrainingError: If one is NaN or infinite; names the first.
        """
        if bool(torch.isfinite(values).all()):
            return
        step, which = (~torch.isfinite(values)).nonzero()[0].tolist()
        where = f"in stage {self.stage.name}, epoch {self.epoch + 1}, step {step + 1}"
        rates = ", ".join(f"{learner.rate:g} ({learner.name})" for learner in self.learners)
        before = values[:step, which]
        before = before[before != NO_SAMPLES]
        history = f"; in this epoch it was {float(before[0]):.4g} first" if len(before) else ""
        history += f" and {float(before[-1]):.4g} last" if len(before) > 1 else ""
        raise TrainingError(
            f"{self.names[which]} is {float(values[step, which])} {where}{self.step.describe_column(which)}{history}. "
            f"Learning rate: {rates}. If the value grew, try a smaller learning rate, a smaller weight, or "
            "gradient_clip; if it did not, look for a logarithm or root of 0, or a division by 0, in the loss"
        )


def optimizer_steps(batches: int, accumulate: int) -> int:
    """Optimizer steps for `batches` batches, `accumulate` per step; the last step may have fewer."""
    return -(-batches // accumulate)
