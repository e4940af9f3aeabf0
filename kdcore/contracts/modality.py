"""Modalities: kinds of signals, and recorded signals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Modality:
    """A named kind of signal with its specification, which is passed from the dataset through transforms to the encoder.

    A dataset declares it for its recordings, transforms declare how their output differs (`output_spec`), and components read
    it. Empty fields and None mean unknown.

    Args:
        name: Name in recipes, e.g. ``accelerometer``.
        axes: Names of a recorded array's axes; ``time``, if present, is the first.
        layout: The same names in the order of an encoder's input, without the batch axis.
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
        """The specification without fields that contradict `shape` (no batch axis); None if the number of axes differs.

        A transform may change a tensor's shape without declaring it; the fields about that axis are then no longer valid.
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
