"""Modalities: what kind of signal a sensor gives, and one recorded signal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Modality:
    """A named kind of signal, and all that is known of it: the spec that travels from the dataset to the encoder.

    A dataset says it of what it records; each transform says how its output differs (`output_spec`), and components take
    what they need to know from it. What is empty or None is unknown.

    Args:
        name: As recipes write it, e.g. ``accelerometer``.
        axes: Names of a recorded array's axes; where there is ``time``, it is the first.
        layout: The same names in the order an encoder's tensor has them (without the batch axis).
        units: Unit of the values, e.g. ``m/s^2``; ``1`` for numbers without one.
        rate: Nominal sampling rate in Hz, None where recordings differ.
        channels: Names of the entries along the ``channel`` axis.
        placement: Where the sensor is, e.g. ``left-wrist``.
        skeleton: The skeleton layout of joint positions: a name, or joints, edges and centre.
        persons: Entries along the ``person`` axis.
        description: One line for ``kdcore describe``.
        links: Pairs of indices along the ``joint`` axis that pictures join by a line; guessed from the recording if empty.

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
        """The spec without what a tensor of `shape` (no batch axis) contradicts; None if it has other axes.

        A transform that changes a tensor's shape and does not say so makes what it was told of its input untrue.
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
