"""Losses with one fault each in what they keep, or in how they are compiled and distributed."""

from __future__ import annotations

import torch
from faults import caught_by
from faulty_losses import Plain
from torch import Tensor, nn

from kdcore import Example, LossContext


@caught_by("loss", "state_registered")
class Attribute(Plain):
    """Keeps a tensor where `to` does not find it."""

    def __init__(self):
        super().__init__()
        self.scale = {"logits": torch.tensor(2.0)}

    def forward(self, ctx: LossContext) -> Tensor:
        return super().forward(ctx) * self.scale["logits"].to(ctx.student.logits.device)


@caught_by("loss", "parameters_trained")
class Frozen(Plain):
    """Has a parameter that never gets a gradient other than zero."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(()))

    def forward(self, ctx: LossContext) -> Tensor:
        return super().forward(ctx) + 0 * self.offset


@caught_by("loss", "parameters_trained", "distributed")
class Unused(Plain):
    """Has a parameter that it does not use, which several processes wait for in vain."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(()))


@caught_by("loss", "state_saved")
class Forgetful(Plain):
    """Keeps a running average in a number, which no checkpoint holds."""

    def __init__(self):
        super().__init__()
        self.average = 1.0

    def forward(self, ctx: LossContext) -> Tensor:
        value = super().forward(ctx)
        scaled = value / self.average
        self.average = max(1e-6, 0.9 * self.average + 0.1 * value.item())
        return scaled


@caught_by("loss", "compiles")
class Uncompiled(Plain):
    """Gives something else when compiled."""

    def forward(self, ctx: LossContext) -> Tensor:
        return super().forward(ctx) * (2 if torch.compiler.is_compiling() else 1)


@caught_by("loss", "distributed")
class Shared(Plain):
    """Averages over processes, as kdcore does already."""

    def forward(self, ctx: LossContext) -> Tensor:
        count = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        return super().forward(ctx) / count


@caught_by("loss", "no_backward")
class Selfish(Plain):
    """Trains a parameter of its own while it is computed."""

    def setup(self, example: Example) -> None:
        super().setup(example)
        self.critic = nn.Parameter(torch.zeros(()))

    def forward(self, ctx: LossContext) -> Tensor:
        with torch.enable_grad():
            (self.critic - ctx.student.logits.detach().mean()).square().backward()
        return super().forward(ctx) + 0 * self.critic
