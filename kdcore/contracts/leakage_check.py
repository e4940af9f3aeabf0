"""Base class of searches for copies of test recordings in other splits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

from kdcore.contracts.dataset import Sample, SampleKey
from kdcore.contracts.modality import Signal
from kdcore.contracts.protocol import Splits


class LeakageCheck(ABC):
    """Search for copies of test recordings in other splits.

    Each recording is summarised once, when its data are prepared; the summaries are cached with the data. The search
    runs before training. Unless it stops the run, its findings are cached with the data, too, so they must depend only on
    the arguments and the check's code. kdcore itself finds recordings with equal values; a check finds copies that differ.

    Attributes:
        name: Name under which summaries are cached; unique among all checks.
        certain: True if a finding proves a leak and stops the run; False if it is a warning.
    """

    name: ClassVar[str]
    certain: ClassVar[bool]

    @abstractmethod
    def summary(self, signal: Signal) -> str:
        """Return a short text that `findings` compares; empty to leave out the recording.

        Called in processes that read recordings and do not import torch. Not called for constant or very short recordings.
        """

    @abstractmethod
    def findings(
        self,
        splits: Splits,
        summaries: Mapping[str, Mapping[SampleKey, str]],
        contents: Mapping[str, Mapping[SampleKey, str]],
        read: Callable[[Sample, str], Signal],
    ) -> list[str]:
        """Return a one-line message for each copy.

        Args:
            splits: Samples of each split.
            summaries: Modality → sample key → summary, without empty summaries.
            contents: Modality → sample key → hash of the values. kdcore itself reports equal recordings.
            read: ``read(sample, modality)`` reads a recording.
        """
