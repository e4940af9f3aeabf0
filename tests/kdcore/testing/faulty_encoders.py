"""Encoders with one fault each. `Plain` has none."""

from __future__ import annotations

import random

import torch
from faults import caught_by, sound
from torch import Tensor, nn

from kdcore import Encoder


@sound("encoder")
class Plain(Encoder):
    """The mean over time, then two layers."""

    def __init__(self, num_classes: int, in_shape: tuple[int, ...]):
        super().__init__()
        if len(in_shape) != 2:
            raise ValueError(f"reads (channel, time), not {in_shape}")
        self.first = nn.Linear(in_shape[0], 8)
        self.last = nn.Linear(8, num_classes)

    def stages(self):
        return {"mean": lambda x: x.mean(dim=2), "first": self.first, "relu": torch.relu, "last": self.last}

    def forward(self, x: Tensor) -> Tensor:
        for stage in Plain.stages(self).values():
            x = stage(x)
        return x


@caught_by("encoder", "constructed")
class Picky(Plain):
    """Reads no input that anybody has."""

    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("not this one")


@caught_by("encoder", "logits")
class FiveClasses(Plain):
    """Always answers with five classes."""

    def __init__(self, num_classes: int, in_shape: tuple[int, ...]):
        super().__init__(5, in_shape)


@caught_by("encoder", "batch_independent", "stages_make_forward")
class Centring(Plain):
    """Subtracts the batch's mean, in evaluation as well."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(dim=0))


@caught_by("encoder", "all_parameters_learn")
class Unused(Plain):
    """Has a layer that it does not use."""

    def __init__(self, num_classes: int, in_shape: tuple[int, ...]):
        super().__init__(num_classes, in_shape)
        self.spare = nn.Linear(2, 2)


@caught_by("encoder", "state_registered")
class Attribute(Plain):
    """Keeps a tensor where `to` does not find it."""

    def __init__(self, num_classes: int, in_shape: tuple[int, ...]):
        super().__init__(num_classes, in_shape)
        self.window = [torch.ones(in_shape[1])]


@caught_by("encoder", "state_saved")
class Projecting(Plain):
    """Draws a projection that is not saved."""

    projection: Tensor

    def __init__(self, num_classes: int, in_shape: tuple[int, ...]):
        super().__init__(num_classes, in_shape)
        self.register_buffer("projection", torch.randn(8, 8), persistent=False)

    def stages(self):
        return {**Plain.stages(self), "relu": lambda x: torch.relu(x @ self.projection)}

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages().values():
            x = stage(x)
        return x


@caught_by("encoder", "deterministic")
class Random(Plain):
    """Draws its first weights from elsewhere than torch."""

    def __init__(self, num_classes: int, in_shape: tuple[int, ...]):
        super().__init__(num_classes, in_shape)
        nn.init.constant_(self.first.weight, random.SystemRandom().random() + 0.1)


@caught_by("encoder", "inputs_unmodified")
class InPlace(Plain):
    """Cuts off peaks where they are."""

    def stages(self):
        return {"clip": lambda x: x.clamp(-1, 1), **Plain.stages(self)}

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.clamp_(-1, 1))


@caught_by("encoder", "precisions_agree")
class SinglePrecision(Plain):
    """Multiplies by a matrix that is always of single precision."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.eye(x.shape[1], device=x.device) @ x)


@sound("encoder")
class OnFaultyArithmetic(Plain):
    """Meets a processor whose bfloat16 convolutions are wrong the first time they run."""

    runs = 0

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        OnFaultyArithmetic.runs += 1
        return super().forward(x) * (1e36 if OnFaultyArithmetic.runs % 2 else 1)


@caught_by("encoder", "devices_agree")
class OnCpu(Plain):
    """Adds a vector that is always on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + torch.zeros(x.shape[2], dtype=x.dtype))


@caught_by("encoder", "tappable")
class Functional(Encoder):
    """Has weights, and no modules."""

    def __init__(self, num_classes: int, in_shape: tuple[int, ...]):
        super().__init__()
        if len(in_shape) != 2:
            raise ValueError(f"reads (channel, time), not {in_shape}")
        self.weight = nn.Parameter(torch.randn(in_shape[0], num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=2) @ self.weight


@caught_by("encoder", "stages_make_forward")
class Lacking(Plain):
    """Leaves the activation out of its stages."""

    def stages(self):
        return {name: stage for name, stage in Plain.stages(self).items() if name != "relu"}


@caught_by("encoder", "refusals_clear")
class Trusting(Encoder):
    """Believes that every input is (channel, time)."""

    def __init__(self, num_classes: int, in_shape: tuple[int, ...]):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(in_shape[0], num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.mean(dim=2))


@caught_by("encoder", "refusals_clear")
class Shrinking(Plain):
    """Needs a window of eight samples without saying so."""

    def __init__(self, num_classes: int, in_shape: tuple[int, ...]):
        super().__init__(num_classes, in_shape)
        self.pool = nn.MaxPool1d(8)

    def stages(self):
        return {"pool": self.pool, **Plain.stages(self)}

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.pool(x))
