"""Recordings that belong to no dataset: files, streams and data frames that plugins read for prediction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kdcore.contracts.modality import Modality, Signal


@dataclass(frozen=True)
class RecordingForm:
    """The form in which a student reads a recording.

    Args:
        modality: Modality of the recording.
        rate: Sampling rate in Hz.
        units: Unit of the values if the source does not state it. Default: the unit of the modality.
        channels: Number of channels, if `modality` does not name them.
    """

    modality: Modality
    rate: float
    units: str = ""
    channels: int = 0


class PlainRecording(ABC):
    """A recording that belongs to no dataset. A plugin returns one from the hook ``open_recording``.

    Error messages do not name the source; kdcore adds it.

    Attributes:
        names: Column names; empty if there are none.
        time: Name of the column with time stamps; empty if there is none.
    """

    names: Sequence[str] = ()
    time: str = ""

    @abstractmethod
    def signal(self, form: RecordingForm) -> Signal:
        """Read the recording. Values have the units and the channel order of the modality.

        Raises:
            DataError: If it cannot be read, or does not match the modality.
        """

    def blocks(self, form: RecordingForm) -> Iterator[np.ndarray]:
        """Yield blocks of time steps, (T, …), as they arrive.

        By default, the whole recording is one block. Override this method for streams.

        Raises:
            DataError: See `signal`.
        """
        yield self.signal(form).values
