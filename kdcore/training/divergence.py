"""Training that diverges: steps that are not finite, skipped if the recipe says so, and losses that only grow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from kdcore.errors import TrainingError
from kdcore.training.learner import Learner
from kdcore.training.sharding import in_full

FEWEST_EPOCHS = 3
"""Epochs from which on a loss that grew in each of them is worth a word."""


class Skipping:
    """Skips steps whose loss or gradients are not finite numbers, so that they change nothing but the count of steps.

    Args:
        limit: Steps that may be skipped; one more is an error.
        local: Whether the loss itself is looked at; gradients alone are the same in all processes.
        scaled: Whether a gradient scaler deals with gradients, which it lets overflow now and then.
    """

    def __init__(self, limit: int, local: bool = True, scaled: bool = False):
        self.limit, self.local, self.scaled, self.count = limit, local, scaled, 0
        self._buffers: list[tuple[Tensor, Tensor]] = []

    def remember(self, modules: Iterable[nn.Module]) -> None:
        """Keep the buffers of what learns, such as running statistics, as they are before a step."""
        found = {id(buffer): buffer for module in modules for buffer in module.buffers()}
        self._buffers = [(buffer, buffer.clone()) for buffer in found.values()]

    def skips(self, total: Tensor, learners: Sequence[Learner]) -> bool:
        """Return True to skip the step that has just been differentiated; its gradients are then dropped.

        Raises:
            TrainingError: If the limit is passed.
        """
        if self.scaled and not self.local:
            return False
        parameters = [] if self.scaled else [each for learner in learners for each in learner.parameters]
        gradients = [each.grad for each in parameters if each.grad is not None]
        looked_at = [in_full(torch.linalg.vector_norm(each)).float() for each in gradients]
        if self.local or not looked_at:
            looked_at.append(total.detach().float())
        if bool(torch.isfinite(torch.stack(looked_at)).all()):
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


def only_grew(history: Sequence[Sequence[float]], names: Sequence[str]) -> list[str]:
    """Learners whose every term was larger after each epoch than before, in a sentence each.

    Args:
        history: Mean of every term for each epoch of a stage.
        names: ``learner/term`` of the columns.
    """
    if len(history) < FEWEST_EPOCHS:
        return []
    said = []
    for learner in dict.fromkeys(name.partition("/")[0] for name in names):
        mine = [column for column, name in enumerate(names) if name.partition("/")[0] == learner]
        curves = [[epoch[column] for epoch in history] for column in mine]
        if all(before < after for curve in curves for before, after in pairwise(curve)):
            spans = [f"{names[column]} {curve[0]:.3g} to {curve[-1]:.3g}" for column, curve in zip(mine, curves, strict=True)]
            said.append(
                f"the loss of {learner} grew in every one of {len(history)} epochs ({', '.join(spans)}); "
                "the learning rate may be too large"
            )
    return said
