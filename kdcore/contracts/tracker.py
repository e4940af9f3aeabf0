"""Trackers, which send a run's records to a tracking service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdcore.runs.journal import Journal


class Tracker:
    """Base class of trackers, which send a run's records during the run; this class sends nothing.

    Every record is on disk, in the run's journal, before a tracker sees it. Records count once they are committed: a killed run
    discards the rest, so a tracker sends committed records only. It must never slow or stop training.

    A plugin returns an instance from the hook ``open_tracker``.
    """

    address: str = ""
    """The address that records are sent to; kept in the header of a new journal."""

    def open(self, journal: Journal) -> None:
        """Take the journal whose records are to be sent. Called once, before any record is added."""

    def rewind(self, position: int) -> None:
        """Note, durably, that nothing after byte `position` was sent. Called before the journal is cut there."""

    def recorded(self) -> None:
        """Metrics were added; called every few steps of training."""

    def committed(self) -> None:
        """Records up to ``journal.committed`` are final and may be sent."""

    def close(self, timeout: float = 30) -> bool:
        """Wait at most `timeout` seconds until committed records are sent; returns whether all are."""
        return True

    def run_ids(self) -> Mapping[str, str]:
        """Map local run names (``root``, ``seed-0`` …) to the service's ids, for the runs it knows by now."""
        return {}

    def describe(self) -> str:
        """Say how to look at what was tracked."""
        return ""
