"""Diverging training: skips steps with NaN or infinite values if allowed, and reports losses that grow in every epoch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from kdcore.errors import TrainingError
from kdcore.training.learner import Learner
from kdcore.training.sharding import full_tensor_of

FEWEST_EPOCHS = 3
"""Fewest epochs after which a loss that grew in every epoch is reported."""


class Skipping:
    """Skips steps whose loss or gradients are NaN or infinite; they change nothing but the step count.

    Args:
        limit: Largest number of skipped steps; one more is an error.
        local: Also check the loss. False with several processes: only gradients, which are the same in all of them, may decide.
        scaled: Leave gradients to the gradient scaler, which lets them overflow occasionally.
    """

    def __init__(self, limit: int, local: bool = True, scaled: bool = False):
        self.limit, self.local, self.scaled, self.count = limit, local, scaled, 0
        self._buffers: list[tuple[Tensor, Tensor]] = []

    def remember(self, modules: Iterable[nn.Module]) -> None:
        """Copy the buffers of the learners' modules, such as running statistics, before a step."""
        buffers = dict.fromkeys(buffer for module in modules for buffer in module.buffers())
        self._buffers = [(buffer, buffer.clone()) for buffer in buffers]

    def skips(self, total: Tensor, learners: Sequence[Learner]) -> bool:
        """True if the step must be skipped, after its backward pass; gradients are then dropped and buffers restored.

        Raises:
            TrainingError: If more than `limit` steps were skipped.
        """
        if self.scaled and not self.local:
            return False
        parameters = [] if self.scaled else [each for learner in learners for each in learner.parameters]
        gradients = [each.grad for each in parameters if each.grad is not None]
        numbers = [full_tensor_of(torch.linalg.vector_norm(each)).float() for each in gradients]
        if self.local or not numbers:
            numbers.append(total.detach().float())
        if bool(torch.isfinite(torch.stack(numbers)).all()):
            return False
        self.count += 1
        if self.count > self.limit:
            raise TrainingError(
                f"{self.count} steps had a loss or gradient that is not a finite number, more than engine.skipped_steps "
                f"({self.limit}) allows; try a smaller learning rate, or gradient_clip"
            )
        for buffer, before in self._buffers:
            buffer.copy_(before)
        for learner in learners:
            for parameter in learner.parameters:
                parameter.grad = None
        return True


def growing_losses(history: Sequence[Sequence[float]], names: Sequence[str]) -> list[str]:
    """Describe the learners all of whose terms grew in every epoch, one sentence each.

    Args:
        history: Epoch → mean of each term.
        names: ``learner/term`` of each column.
    """
    if len(history) < FEWEST_EPOCHS:
        return []
    notes, curves = [], dict(zip(names, zip(*history, strict=True), strict=True))
    for learner in dict.fromkeys(name.partition("/")[0] for name in names):
        own = {name: curve for name, curve in curves.items() if name.partition("/")[0] == learner}
        if all(before < after for curve in own.values() for before, after in pairwise(curve)):
            spans = ", ".join(f"{name} {curve[0]:.3g} to {curve[-1]:.3g}" for name, curve in own.items())
            grew = f"the loss of {learner} grew in every one of {len(history)} epochs ({spans})"
            notes.append(f"{grew}; the learning rate may be too large")
    return notes
