"""The MLflow tracker: sends a run's journal to MLflow from a thread of its own."""

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
"""Kinds of address that MLflow knows without plugins of its own."""

EXAMPLES = "sqlite:///FILE.db or http://HOST:PORT"

SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Between two attempts to reach MLflow, in seconds."""


class MlflowTracker(Tracker):
    """Sends committed records to MLflow in the background; training never waits for it.

    A record that is sent twice, because a crash came between sending and noting it, counts once: its time and its run are those
    of the first time.

    Args:
        uri: An MLflow server or database; None for the journal's own, else ``MLFLOW_TRACKING_URI``, else
            ``mlflow.db`` in the current folder.
        say: Is given each line meant for the user.

    Raises:
        UsageError: If `uri` is of no kind that MLflow has.
    """

    def __init__(self, uri: str | None = None, say: Callable[[str], None] = print):
        self.uri = with_password(tracking_address(uri))
        self.address = without_password(self.uri)  # what is stored
        self._named, self._say = bool(uri), say
        self._load: MachineLoad | None = None
        self._loaded = ""
        self._wake, self._closing, self._given_up = threading.Condition(), False, threading.Event()
        self._thread: threading.Thread | None = None
        self._trouble = ""

    def open(self, journal: Journal) -> None:
        """Take the journal whose records are to be sent."""
        self._journal = journal
        if not self._named:
            self.uri = with_password(journal.header["uri"]) or self.uri
        self._sender = _sender(journal, self.uri, self._say)

    def watch_load(self, run: str) -> None:
        """Record the system's load from now on, as metrics of `run`."""
        if run != self._loaded:
            self._load, self._loaded = MachineLoad(), run

    def rewind(self, position: int) -> None:
        """Note that nothing after byte `position` was sent."""
        self._sender.rewind(position)

    def recorded(self) -> None:
        """Record the machine's load now and then."""
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
        """Send what is committed, in time."""
        with self._wake:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="kdcore-tracking", daemon=True)
                self._thread.start()
            self._wake.notify_all()

    def close(self, timeout: float = 30) -> bool:
        """Wait until all committed records are sent, at most `timeout` seconds; say so if some are not."""
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
        """Local name → MLflow run id, of the runs that MLflow knows by now."""
        return dict(self._sender.runs)

    def describe(self) -> str:
        """A command that shows what was tracked."""
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
                # The first failure may be two runs making one database; it is worth a second try before a word.
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
    """Send what a run's journal holds and MLflow does not know yet.

    Args:
        folder: The tracker's folder.
        uri: Where to, if not where the run was to be tracked: everything is then sent there.
        say: Is given each line meant for the user.
        stop: Ends sending early when it returns true.

    Returns:
        How many records were sent.

    Raises:
        KdcoreError: If there is no journal, or MLflow cannot be reached; what was sent until then stays sent.
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
    """The address that the run in this folder is tracked at, and MLflow's ids of its runs, ``root``, ``seed-0`` …

    Raises:
        KdcoreError: If there is no journal.
    """
    journal = Journal(run / "tracking", writable=False)
    uri = with_password(journal.header["uri"])
    return uri, dict(_sender(journal, uri, print).runs)


def _sender(journal: Journal, uri: str, say: Callable[[str], None]) -> Sender:
    return Sender(journal, uri, lambda: MlflowStore(uri, journal.header["experiment"], journal.header["id"]), say)


def tracking_address(uri: str | None) -> str:
    """The address of MLflow: `uri`, ``$MLFLOW_TRACKING_URI`` or ``mlflow.db`` in the current folder; absolute, if a file.

    Raises:
        UsageError: If that is of no kind that MLflow has.
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
    """True if a plugin of MLflow's knows the scheme."""
    return any(point.name == scheme for point in entry_points(group="mlflow.tracking_store"))


def without_password(uri: str) -> str:
    """An address for people to read."""
    return re.sub(r"//[^/?#\s]*@", "//", uri)


def with_password(stored: str) -> str:
    """An address as it is stored, with the credentials of ``MLFLOW_TRACKING_URI`` if that is the same place."""
    named = os.environ.get("MLFLOW_TRACKING_URI", "")
    return named if stored and without_password(named) == stored else stored


def _trouble(uri: str, error: Exception) -> str:
    said = re.split(r"\[SQL|\(Background on this error", one_line(error))[0].strip(" ;,")  # a statement says nothing to a user
    return f"MLflow at {without_password(uri)} cannot be used ({without_password(said)})"
