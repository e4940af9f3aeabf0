"""Trackers: send a run's records to a tracking service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdcore.runs.journal import Journal


class Tracker:
    """Base class of trackers, which send a run's records to a tracking service during the run. This class sends nothing.

    Every record is in the run's journal on disk before a tracker sees it. A killed run discards records that are not committed,
    so a tracker must send committed records only. It must never slow down or stop training.

    A plugin returns an instance from the hook ``open_tracker``.
    """

    address: str = ""
    """The address that records are sent to; kept in the header of a new journal."""

    def open(self, journal: Journal) -> None:
        """Receive the journal whose records are to be sent. Called once, before any record is added."""

    def rewind(self, position: int) -> None:
        """Record durably that nothing after byte `position` was sent. Called before the journal is truncated there."""

    def recorded(self) -> None:
        """Called after metrics were added, every few training steps."""

    def committed(self) -> None:
        """Called after a commit: records up to ``journal.committed`` are final and may be sent."""

    def close(self, timeout: float = 30) -> bool:
        """Wait at most `timeout` seconds until committed records are sent; returns whether all are."""
        return True

    def run_ids(self) -> Mapping[str, str]:
        """Map local run names (``root``, ``seed-0`` …) to the service's ids, for the runs it knows by now."""
        return {}

    def describe(self) -> str:
        """Return instructions for viewing the tracked run."""
        return ""
