"""Plain recordings: files, streams and data frames that belong to no dataset, which plugins read for prediction."""

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
        units: Unit of values whose source states none. Default: the unit of the modality.
        channels: Number of channels, if `modality` does not name them.
    """

    modality: Modality
    rate: float
    units: str = ""
    channels: int = 0


class PlainRecording(ABC):
    """A recording that belongs to no dataset. A plugin returns one from the hook ``open_recording``.

    Errors do not name the source; the caller adds it.

    Attributes:
        names: Column names; empty if there are none.
        time: Name of the column with time stamps; empty if there is none.
    """

    names: Sequence[str] = ()
    time: str = ""

    @abstractmethod
    def signal(self, form: RecordingForm) -> Signal:
        """Read the recording in the units and the order of channels of the modality.

        Raises:
            DataError: If it cannot be read, or does not match the modality.
        """

    def blocks(self, form: RecordingForm) -> Iterator[np.ndarray]:
        """Yield samples (T, …) as they arrive. Streams override this; by default, all samples are one block.

        Raises:
            DataError: As `signal`.
        """
        yield self.signal(form).values
