"""Trained modules between a student's activations and a teacher's, for any number of position axes."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from kdcore_losses.regressor import Regressor

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class ChannelNorm(nn.BatchNorm1d):
    """Batch normalisation of channels over samples and positions.

    If a channel has a single value, as in a batch of one vector, the running statistics are used.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, …) → the same shape."""
        values = input.contiguous().flatten(2) if input.ndim > 2 else input[:, :, None]
        if len(values) * values.shape[2] > 1:
            return super().forward(values).reshape(input.shape)
        return F.batch_norm(values, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps).reshape(
            input.shape
        )


class Connector(nn.Sequential):
    """A `Regressor` and batch normalisation: a 1×1 convolution with normalised channels.

    Args:
        inputs: Channels of the student.
        outputs: Channels of the teacher.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__(Regressor(inputs, outputs), ChannelNorm(outputs))


def convolution(inputs: int, outputs: int, axes: int, bias: bool = True) -> nn.Module:
    """Return a convolution of width 3 over `axes` position axes that keeps their lengths; a linear map if there are none."""
    if axes == 0:
        return nn.Linear(inputs, outputs, bias=bias)
    if axes not in CONVOLUTIONS:
        raise ValueError(f"activations with {axes} position axes cannot be convolved; at most 3 axes can")
    return CONVOLUTIONS[axes](inputs, outputs, kernel_size=3, padding=1, bias=bias)
