"""Exponential moving averages of weights: teachers that follow a learner, and averages that replace a learner's own weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from kdcore.contracts.training import MovingAverage


@torch.no_grad()
def update_average(average: nn.Module, learner: nn.Module, how: MovingAverage, step: int) -> None:
    """Update a moving average after optimizer step `step` of the learner that it follows, counted from 0.

    Parameters are averaged; buffers, such as running statistics, are copied, as `torch.optim.swa_utils` does.
    """
    get_ema_multi_avg_fn(how.decay(step))(list(average.parameters()), list(learner.parameters()), step)  # type: ignore[arg-type]
    for old, new in zip(average.buffers(), learner.buffers(), strict=True):
        old.copy_(new)


class WeightAverage:
    """Exponential moving average of a learner's parameters, evaluated and saved in their place; buffers are not averaged."""

    def __init__(self, parameters: Sequence[nn.Parameter], how: MovingAverage):
        self.parameters, self.how = list(parameters), how
        self.values = [each.detach().clone() for each in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the averages after optimizer step `step`, counted from 0."""
        get_ema_multi_avg_fn(self.how.decay(step))(self.values, self.parameters, step)  # type: ignore[arg-type]

    @torch.no_grad()
    def apply(self) -> None:
        """Copy the averages to the parameters."""
        for parameter, value in zip(self.parameters, self.values, strict=True):
            parameter.copy_(value)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Context in which the parameters have the averaged values."""
        live = [each.detach().clone() for each in self.parameters]
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(self.parameters, live, strict=True):
                    parameter.copy_(value)

    def tensors(self) -> dict[str, Tensor]:
        """Index → average, for a checkpoint."""
        return {str(index): value for index, value in enumerate(self.values)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `tensors` returned."""
        self.values = [tensors[str(index)].to(each.device).clone() for index, each in enumerate(self.parameters)]
