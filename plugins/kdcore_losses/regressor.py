"""Map a student's channels to a teacher's."""

from __future__ import annotations

from torch import Tensor, nn


class Regressor(nn.Module):
    """A linear map of channels without bias, the same at every position: a 1×1 convolution for any number of axes.

    Args:
        inputs: Channels of the student.
        outputs: Channels of the teacher.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, …) → (B, outputs, …)."""
        return self.linear(x.movedim(1, -1)).movedim(-1, 1)
