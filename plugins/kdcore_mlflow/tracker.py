"""MLflow tracker, which sends the journal of a run to MLflow from a background thread."""

from __future__ import annotations

import os
import re
import shlex
import threading
import time
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import urlparse

from kdcore import Journal, KdcoreError, Tracker, UsageError, one_line
from kdcore_mlflow.database import SQLITE
from kdcore_mlflow.sender import Sender
from kdcore_mlflow.store import MlflowStore
from kdcore_mlflow.system_metrics import MachineLoad
from kdcore_mlflow.unsent import forget_unsent, note_unsent

SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks", "databricks-uc", "uc")
"""URI schemes that MLflow supports without plugins."""

EXAMPLES = "sqlite:///FILE.db or http://HOST:PORT"

SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Interval between attempts to reach MLflow, in seconds."""


class MlflowTracker(Tracker):
    """Sends committed records to MLflow in the background. Training never waits for it.

    A record that is sent twice after a crash counts once, with the time and run of the first attempt.

    Args:
        uri: MLflow server or database. Default: that of the journal, or else ``MLFLOW_TRACKING_URI``, or else ``mlflow.db`` in
            the current folder.
        say: Called with each line for the user.

    Raises:
        UsageError: If MLflow does not support the URI.
    """

    def __init__(self, uri: str | None = None, say: Callable[[str], None] = print):
        self.uri = with_password(tracking_address(uri))
        self.address = without_password(self.uri)  # the stored value
        self._named, self._say = bool(uri), say
        self._load: MachineLoad | None = None
        self._loaded = ""
        self._wake, self._closing, self._given_up = threading.Condition(), False, threading.Event()
        self._thread: threading.Thread | None = None
        self._trouble = ""

    def open(self, journal: Journal) -> None:
        """Open the journal whose records to send."""
        self._journal = journal
        if not self._named:
            self.uri = with_password(journal.header["uri"]) or self.uri
        self._sender = _sender(journal, self.uri, self._say)

    def watch_load(self, run: str) -> None:
        """Start recording the system load as metrics of `run`."""
        if run != self._loaded:
            self._load, self._loaded = MachineLoad(), run

    def rewind(self, position: int) -> None:
        """Store that nothing after byte `position` was sent."""
        self._sender.rewind(position)

    def recorded(self) -> None:
        """Record the system load periodically."""
        if self._load and (metrics := self._load.due()):
            step, values = metrics
            record = {
                "kind": "metrics",
                "run": self._loaded,
                "time": time.time_ns() // 1_000_000,
                "step": step,
                "values": values,
            }
            self._journal.append(record)

    def committed(self) -> None:
        """Send committed records in the background."""
        with self._wake:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="kdcore-tracking", daemon=True)
                self._thread.start()
            self._wake.notify_all()

    def close(self, timeout: float = 30) -> bool:
        """Wait at most `timeout` seconds until all committed records are sent, and print a line if some are not."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join(timeout)
        self._given_up.set()
        waiting, folder, here = self._sender.waiting(), self._journal.path.parent, without_password(self.uri)
        if waiting:
            note_unsent(self._journal)
            self._say(
                f"tracking: {self._trouble + '; ' if self._trouble else ''}{waiting} records are waiting in {folder}; "
                f"the next kdcore command, or `kdcore sync {shlex.quote(str(folder))}`, sends them to {here}"
            )
        else:
            forget_unsent(self._journal)
        return not waiting

    def run_ids(self) -> dict[str, str]:
        """Return the MLflow run IDs known so far, by local name."""
        return dict(self._sender.runs)

    def describe(self) -> str:
        """Return a command that shows the tracked run."""
        experiment = f"experiment {self._journal.header['experiment']!r}"
        if self.uri.startswith("http"):
            return f"{experiment} at {without_password(self.uri)}"
        return f"{experiment}: mlflow ui --backend-store-uri {shlex.quote(without_password(self.uri))}"

    def _work(self) -> None:
        failures, warned = 0, False
        while not self._given_up.is_set():
            with self._wake:
                self._wake.wait_for(lambda: self._closing or self._sender.sent < self._journal.committed)
                closing = self._closing
            try:
                self._sender.send(self._given_up.is_set)
                failures, self._trouble = 0, ""
            except Exception as error:
                failures, self._trouble = failures + 1, _trouble(self.uri, error)
                # The first failure may be a race of two runs that create the database; try again before reporting it.
                if failures == 2 and not warned:
                    warned = True
                    self._say(f"tracking: {self._trouble}; training continues; records are kept in {self._journal.path.parent}")
                with self._wake:
                    self._wake.wait_for(lambda: self._closing, min(2.0 ** (failures - 1), LONGEST_PAUSE))
                self._given_up.wait(SHORTEST_PAUSE)
            if closing and (failures > 2 or self._sender.sent >= self._journal.committed):
                return


def sync(
    folder: Path,
    uri: str | None = None,
    say: Callable[[str], None] = print,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Send the records of a run's journal that MLflow does not have yet.

    Args:
        folder: Folder of the tracker.
        uri: Destination, if not the original one; all records are sent to it.
        say: Called with each line for the user.
        stop: Stops sending early when it returns true.

    Returns:
        Number of records sent.

    Raises:
        KdcoreError: If there is no journal, or MLflow is unavailable. Records sent before the error are kept.
    """
    journal = Journal(folder, writable=False)
    sender = _sender(journal, tracking_address(uri or with_password(journal.header["uri"])), say)
    try:
        count = sender.send(stop)
        if not sender.waiting():
            forget_unsent(journal)
        return count
    except Exception as error:
        raise KdcoreError(f"{_trouble(sender.uri, error)}; {sender.waiting()} records still wait in {folder}") from error


def tracked_runs(run: Path) -> tuple[str, dict[str, str]]:
    """Return the tracking URI of the run in this folder, and MLflow's IDs of its runs, ``root``, ``seed-0`` …

    Raises:
        KdcoreError: If there is no journal.
    """
    journal = Journal(run / "tracking", writable=False)
    uri = with_password(journal.header["uri"])
    return uri, dict(_sender(journal, uri, print).runs)


def _sender(journal: Journal, uri: str, say: Callable[[str], None]) -> Sender:
    return Sender(journal, uri, lambda: MlflowStore(uri, journal.header["experiment"], journal.header["id"]), say)


def tracking_address(uri: str | None) -> str:
    """Return the tracking URI: `uri`, ``$MLFLOW_TRACKING_URI`` or ``mlflow.db`` in the current folder. Files are absolute.

    Raises:
        UsageError: If MLflow does not support the URI.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    if uri.startswith(SQLITE):
        return SQLITE + str(Path(uri.removeprefix(SQLITE)).expanduser().absolute())
    scheme = urlparse(uri).scheme.partition("+")[0]
    if scheme in ("", "file") and not uri.startswith("databricks"):
        raise UsageError(f"MLflow no longer tracks into a folder of files ({uri}): write {EXAMPLES}")
    if scheme and scheme not in SCHEMES and not _provided(scheme):
        raise UsageError(f"MLflow does not support {scheme}:// addresses ({without_password(uri)}): write {EXAMPLES}")
    return uri


def _provided(scheme: str) -> bool:
    """Return whether a plugin of MLflow provides the URI scheme."""
    return any(point.name == scheme for point in entry_points(group="mlflow.tracking_store"))


def without_password(uri: str) -> str:
    """Return a URI without its password, for messages."""
    return re.sub(r"//[^/?#\s]*@", "//", uri)


def with_password(stored: str) -> str:
    """Return a stored URI with the credentials in ``MLFLOW_TRACKING_URI``, if that is the same server."""
    named = os.environ.get("MLFLOW_TRACKING_URI", "")
    return named if stored and without_password(named) == stored else stored


def _trouble(uri: str, error: Exception) -> str:
    message = re.split(r"\[SQL|\(Background on this error", one_line(error))[0].strip(" ;,")  # omit the SQL statement
    return f"MLflow at {without_password(uri)} cannot be used ({without_password(message)})"
