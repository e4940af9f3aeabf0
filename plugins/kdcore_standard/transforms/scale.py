"""A fixed linear map of values."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from kdcore import Modality, Transform


class Scale(Transform):
    """Multiplies by a number and adds another, the same for every channel: ``x * factor + offset``, as floats.

    Args:
        factor: What values are multiplied by, e.g. 0.10197 for m/s² → g.
        offset: What is added afterwards.
        units: Unit of the result; unknown if not given.
    """

    def __init__(self, *, factor: float = 1.0, offset: float = 0.0, units: str = ""):
        super().__init__()
        self.factor = factor
        self.offset = offset
        self.units = units

    def output_spec(self, spec: Modality) -> Modality:
        """The same signal in other units."""
        return replace(spec, units=self.units)

    def forward(self, x: Tensor) -> Tensor:
        """The mapped values, same shape."""
        return x * self.factor + self.offset
