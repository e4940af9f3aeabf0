"""Modalities: what kind of signal a sensor gives, and one recorded signal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Modality:
    """A named kind of signal.

    Args:
        name: As recipes write it, e.g. ``accelerometer``.
        axes: Names of a recorded array's axes; the first is always ``time``.
        layout: The same names in the order an encoder's tensor has them (without the batch axis).
        units: Unit of the values, e.g. ``m/s^2``.
        rate: Nominal sampling rate in Hz, None where recordings differ.
        channels: Names of the entries along the ``channel`` axis.
        placement: Where the sensor is, e.g. ``left-wrist``.
        skeleton: Name of the skeleton layout, for joint positions.
        description: One line for ``kdcore describe``.
        links: Pairs of indices along the ``joint`` axis that pictures join by a line; guessed from the recording if empty.

    Raises:
        ValueError: If `axes` does not start with time, or `layout` is no permutation of it.
    """

    name: str
    axes: tuple[str, ...]
    layout: tuple[str, ...]
    units: str
    rate: float | None = None
    channels: tuple[str, ...] = ()
    placement: str = ""
    skeleton: str = ""
    description: str = ""
    links: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if not self.axes or self.axes[0] != "time":
            raise ValueError(f"modality {self.name!r}: the first axis must be time, not {self.axes}")
        if sorted(self.axes) != sorted(self.layout):
            raise ValueError(f"modality {self.name!r}: layout {self.layout} is no permutation of axes {self.axes}")

    def renamed(self, name: str, **changes: object) -> Modality:
        """The same kind of signal under another name, e.g. one of several placements."""
        return replace(self, name=name, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Signal:
    """One recording of one modality, on its own clock.

    Args:
        values: Array whose axes are the modality's `axes`, time first.
        rate: Samples per second.
        start: Time of the first sample in seconds, on the clock that a sample's modalities share.
        times: Time of every sample in seconds, where sampling is irregular; shape (T,).
    """

    values: np.ndarray
    rate: float
    start: float = 0.0
    times: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def clock(self) -> np.ndarray:
        """Time of every sample in seconds, shape (T,)."""
        import numpy as np

        return self.times if self.times is not None else self.start + np.arange(len(self.values)) / self.rate

    @property
    def duration(self) -> float:
        """Seconds from the first sample to the end of the last one."""
        return float(self.clock[-1] - self.clock[0]) + 1 / self.rate if len(self) else 0.0

    def with_values(self, values: np.ndarray) -> Signal:
        """The same recording with other values at the same instants."""
        return replace(self, values=values)
