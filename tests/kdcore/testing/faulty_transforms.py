"""Transforms with one fault each. `Plain`, `Fitted`, `Noise`, `Thinned` and `Side` have none."""

from __future__ import annotations

from dataclasses import replace

import torch
from faults import caught_by, sound
from torch import Tensor

from kdcore import Join, SampleTransform, Signal, Transform
from kdcore.testing import Case


@sound("transform")
class Plain(Transform):
    """Twice the input."""

    def forward(self, x: Tensor) -> Tensor:
        return 2.0 * x


@sound("transform")
class Fitted(Transform):
    """Subtracts the mean that it was fitted to."""

    fitted = True
    mean: Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def fit(self, x: Tensor) -> None:
        self.mean = x.float().mean()

    def forward(self, x: Tensor) -> Tensor:
        return x - self.mean


@sound("transform")
class Noise(Transform):
    """Adds noise."""

    augmentation = True

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand(x.shape, device=x.device)


@sound("transform")
class Thinned(SampleTransform):
    """Every other sample."""

    def __call__(self, signal: Signal) -> Signal:
        return replace(signal, values=signal.values[::2], rate=signal.rate / 2)


@sound("transform")
class Side(Join):
    """Side by side."""


@caught_by("transform", "answers")
class Lists(Transform):
    """Gives a list."""

    def forward(self, x: Tensor) -> Tensor:
        return [x]  # type: ignore[return-value]


@caught_by("transform", "answers")
class Unable(Transform):
    """Reads nothing."""

    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("no")


@caught_by("transform", "finite")
class Standardising(Transform):
    """Divides by each sample's spread, which silence has not."""

    def forward(self, x: Tensor) -> Tensor:
        return x / x.float().flatten(1).std(dim=1).view(-1, *[1] * (x.ndim - 1))


@caught_by("transform", "shape_consistent")
class Cutting(Transform):
    """Leaves out what follows the last instant at which anything happened."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.any() else x[..., :1]


@caught_by("transform", "batch_independent")
class Centring(Transform):
    """Subtracts the batch's mean."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.float().mean(dim=0)


@caught_by("transform", "spec_true", case=Case(inputs=[torch.randn(4, 6, 48)]))
class Doubling(Transform):
    """Doubles the channels, and does not say so."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x], dim=1)


@caught_by("transform", "deterministic")
class Undeclared(Transform):
    """Is random, and does not say so."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + torch.rand((), device=x.device))


@caught_by("transform", "augmentation_varies")
class Idle(Transform):
    """Calls itself an augmentation and does nothing."""

    augmentation = True

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


@caught_by("transform", "inputs_unmodified")
class InPlace(Transform):
    """Adds one where the input is."""

    def forward(self, x: Tensor) -> Tensor:
        return x.add_(1)


@caught_by("transform", "inputs_unmodified")
class InPlaceRecording(SampleTransform):
    """Adds one where the recording is."""

    def __call__(self, signal: Signal) -> Signal:
        signal.values[:] += 1
        return signal


@caught_by("transform", "clock_kept")
class Clockless(SampleTransform):
    """Drops samples, not their times."""

    def __call__(self, signal: Signal) -> Signal:
        return replace(signal, values=signal.values[::2], times=signal.clock)


@caught_by("transform", "state_registered")
class Attribute(Plain):
    """Keeps a tensor where `to` does not find it."""

    def __init__(self):
        super().__init__()
        self.window = torch.ones(3)


@caught_by("transform", "state_saved")
class Forgetful(Transform):
    """Keeps what it was fitted to in a number, which no saved student holds."""

    fitted = True

    def __init__(self):
        super().__init__()
        self.mean = 0.0

    def fit(self, x: Tensor) -> None:
        self.mean = float(x.float().mean()) + 1

    def forward(self, x: Tensor) -> Tensor:
        return x - self.mean


@caught_by("transform", "devices_agree")
class OnCpu(Plain):
    """Adds a vector that is always on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.zeros(x.shape[-1])
