"""Backward passes and optimizer steps: gradient accumulation, scaling, clipping and moving averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdcore.errors import TrainingError
from kdcore.training.divergence import Skipping
from kdcore.training.gradient_balance import combined
from kdcore.training.learner import Learner
from kdcore.training.participants import Distiller
from kdcore.training.phases import BACKWARD, OPTIMIZER, OWN, TEACHERS_BACKWARD, Phases
from kdcore.training.randomness import derive
from kdcore.training.sharding import FullWeights
from kdcore.training.stage_context import StageContext

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SMALLEST_SCALE = 2.0**-14
"""Loss scale below which infinite gradients cannot be caused by an overflow of float16."""


class Updates:
    """Runs backward passes and optimizer steps.

    Args:
        fabric: Devices, precision, processes.
        distiller: All participants of the arm, with their losses.
        scaler: Gradient scaler for float16; None for other precisions.
        skipping: Skips steps with NaN or infinite values; None to raise an error for them at the end of the epoch.
        phases: Timer of the training phases.
        shards: Handles weights that are sharded across processes.
    """

    def __init__(
        self,
        fabric: Fabric,
        distiller: Distiller,
        scaler: torch.amp.GradScaler | None,
        skipping: Skipping | None,
        phases: Phases,
        shards: FullWeights,
    ):
        self.fabric, self.distiller, self.scaler, self.skipping, self.phases = fabric, distiller, scaler, skipping, phases
        self.shards = shards

    def reset_scaler(self, state: Mapping[str, Any] | None) -> None:
        """Reset the gradient scaler, if there is one, or restore it from a checkpoint's state."""
        if self.scaler:
            fresh = {**self.scaler.state_dict(), "scale": 2.0**16, "_growth_tracker": 0}
            self.scaler.load_state_dict(dict(state["scaler"]) if state else fresh)

    def update(self, context: StageContext, total: Tensor, values: Sequence[Tensor]) -> None:
        """Accumulate the gradients of a batch, and step all optimizers if the batch completes an optimizer step.

        The gradient of an optimizer step is the mean over its batches. A skipped batch discards the gradients accumulated
        before it for the same step; the step is still counted.

        Args:
            context: The current stage.
            total: Weighted sum of all terms, a scalar with its graph.
            values: Detached value of each term.
        """
        if not context.accumulated:
            for learner in context.learners:
                for parameter in learner.parameters:
                    parameter.grad = None
        self.phases.mark(BACKWARD if context.step.networks.students else TEACHERS_BACKWARD)
        balanced = self._balanced(context)
        self.fabric.backward(total)
        self.shards.average_rest(context.learners)
        for parameter, gradient in balanced:
            parameter.grad = gradient
        self.phases.mark(OWN)
        context.record(values, total.detach())
        if self.skipping and self.skipping.skips(total, context.learners):
            context.discard_last()
            context.accumulated = 0
        else:
            context.accumulated += 1
        if not context.completes_step(context.index):
            return
        stepped = False
        for learner in context.learners:
            if context.accumulated:
                self.phases.mark(OPTIMIZER)
                stepped |= self._step(context, learner)
                self.phases.mark(OWN)
            learner.end_step()
        if self.scaler and stepped:
            self.scaler.update()
        context.accumulated = 0

    def _balanced(self, context: StageContext) -> list[tuple[Tensor, Tensor]]:
        """(parameter, accumulated gradient) of learners with a gradient rule other than the sum."""
        accumulated: list[tuple[Tensor, Tensor]] = []
        for name, values in context.step.balanced.items():
            terms = [value for value in values if value.requires_grad]
            if len(terms) < 2:
                continue
            seed = derive(context.before + context.epoch, "gradients", name, context.index)
            parameters = [each for each in context.by_name[name].parameters if each.requires_grad]
            training = context.training(name)
            gradients = combined(training.gradients, terms, parameters, seed, training.largest_share)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    accumulated.append((parameter, gradient if parameter.grad is None else parameter.grad + gradient))
        return accumulated

    def _step(self, context: StageContext, learner: Learner) -> bool:
        """Step a learner's optimizer with the mean of the accumulated gradients; returns False if there is no gradient."""
        stepped = False
        if learner.optimizer:
            largest = context.training(learner.name).gradient_clip
            for frozen in learner.still_frozen:
                for parameter in frozen.parameters:
                    parameter.grad = None
            stepped = any(each.grad is not None for each in learner.parameters)
            if context.accumulated > 1:
                for each in learner.parameters:
                    if each.grad is not None:
                        each.grad.div_(context.accumulated)
            if self.scaler and largest and stepped:
                self.scaler.unscale_(learner.optimizer)
            if largest:  # per learner, so that its result does not depend on the other learners of the stage
                torch.nn.utils.clip_grad_norm_(learner.parameters, largest)
            if self.scaler is None:
                learner.optimizer.step()
            elif stepped:
                self.scaler.step(learner.optimizer)
            if learner.average:
                learner.average.update(learner.steps)
        if self.distiller.averages:
            self.distiller.update_averages(learner.name, learner.steps)
        return stepped

    def refuse_tiny_scale(self, context: StageContext) -> None:
        """Check after an epoch that the gradient scaler has found a scale with finite gradients.

        Raises:
            TrainingError: If it has not: the optimizers would silently skip every further step.
        """
        if self.scaler and self.scaler.get_scale() < SMALLEST_SCALE:
            raise TrainingError(
                f"stage {context.stage.name}, epoch {context.epoch + 1}: in 16-mixed, gradients are not finite numbers however "
                "small the loss is scaled; set engine.precision to bf16-mixed or 32-true, or try a smaller learning rate"
            )
