"""Modalities and recorded signals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Modality:
    """The specification of a kind of signal: axes, units, rate and channels.

    A dataset declares it, each transform updates it in `output_spec`, and components read it. Empty or None means unknown.

    Args:
        name: Name in recipes, such as ``accelerometer``.
        axes: Axis names of a recorded array; ``time``, if present, is the first.
        layout: The same names in the order of the encoder's input, without the batch axis.
        units: Unit of the values, such as ``m/s^2``; ``1`` if dimensionless.
        rate: Nominal sampling rate in Hz; None if recordings differ.
        channels: Names of the entries along the ``channel`` axis.
        placement: Position of the sensor, such as ``left-wrist``.
        skeleton: Skeleton layout of joint positions: a name, or joints, edges and centre.
        persons: Size of the ``person`` axis.
        description: One line for ``kdcore describe``.
        links: Pairs of indices along the ``joint`` axis that pictures connect; guessed from the recording if empty.

    Raises:
        ValueError: If `axes` has time but does not start with it, or `layout` is no permutation of `axes`.
    """

    name: str
    axes: tuple[str, ...]
    layout: tuple[str, ...]
    units: str
    rate: float | None = None
    channels: tuple[str, ...] = ()
    placement: str = ""
    skeleton: str | Mapping[str, Any] = ""
    persons: int | None = None
    description: str = ""
    links: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if not self.axes or "time" in self.axes[1:]:
            raise ValueError(f"modality {self.name!r}: the first axis must be time, not {self.axes}")
        if sorted(self.axes) != sorted(self.layout):
            raise ValueError(f"modality {self.name!r}: layout {self.layout} is not a permutation of axes {self.axes}")

    def matching(self, shape: Sequence[int]) -> Modality | None:
        """Drop channels and persons that contradict a tensor's `shape` (without batch axis); None if the axes differ.

        A transform that changes the shape without updating the spec leaves wrong entries.
        """
        if len(shape) != len(self.layout):
            return None
        size = dict(zip(self.layout, shape, strict=True))
        untrue: dict[str, Any] = {}
        if self.channels and size.get("channel") != len(self.channels):
            untrue["channels"] = ()
        if self.persons is not None and size.get("person") != self.persons:
            untrue["persons"] = None
        return replace(self, **untrue) if untrue else self

    def renamed(self, name: str, **changes: object) -> Modality:
        """Copy with another name, for example for one of several placements."""
        return replace(self, name=name, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Signal:
    """One recording of one modality, on its own clock.

    Args:
        values: Array with the modality's `axes`, time first.
        rate: Sampling rate in Hz.
        start: Time of the first sample in seconds, on the common clock of a sample's modalities.
        times: (T,) time of each sample in seconds, for irregular sampling; None for regular sampling.
    """

    values: np.ndarray
    rate: float
    start: float = 0.0
    times: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def clock(self) -> np.ndarray:
        """(T,) time of each sample in seconds."""
        import numpy as np

        return self.times if self.times is not None else self.start + np.arange(len(self.values)) / self.rate

    @property
    def duration(self) -> float:
        """Seconds from the first sample to the end of the last one."""
        return float(self.clock[-1] - self.clock[0]) + 1 / self.rate if len(self) else 0.0

    def with_values(self, values: np.ndarray) -> Signal:
        """Copy with other values at the same times."""
        return replace(self, values=values)
