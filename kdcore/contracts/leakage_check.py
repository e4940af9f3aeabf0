"""Base class of searches for copies of recordings in several splits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

from kdcore.contracts.dataset import Sample, SampleKey
from kdcore.contracts.modality import Signal
from kdcore.contracts.protocol import Splits


class LeakageCheck(ABC):
    """A search for test recordings of which another split has a copy that differs in some values.

    Each recording is summarised once, when its data are prepared; the summaries are cached with the data. The search itself
    runs before each training. kdcore finds recordings with equal values without such a check.

    Attributes:
        name: Name under which summaries are cached; unique among all checks.
        certain: True if a finding proves a leak and stops the run; False if it is a warning.
    """

    name: ClassVar[str]
    certain: ClassVar[bool]

    @abstractmethod
    def summary(self, signal: Signal) -> str:
        """Return a short text by which copies are recognised; empty for a recording that is not to be compared.

        Called in processes that read recordings, which load no torch. Not called for constant and very short recordings.
        """

    @abstractmethod
    def findings(
        self,
        splits: Splits,
        summaries: Mapping[str, Mapping[SampleKey, str]],
        contents: Mapping[str, Mapping[SampleKey, str]],
        read: Callable[[Sample, str], Signal],
    ) -> list[str]:
        """Return one line per copy that was found.

        Args:
            splits: Samples of each split.
            summaries: Modality → sample → summary; without empty summaries.
            contents: Modality → sample → hash of the recorded values. Equal recordings are reported already.
            read: ``read(sample, modality)`` reads a recording.
        """
