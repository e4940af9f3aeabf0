"""Tracking: first to disk, then to MLflow, in the background."""

from __future__ import annotations

import os
import re
import shlex
import threading
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import urlparse

from kdcore.errors import KdcoreError, UsageError, one_line
from kdcore.results.database import SQLITE
from kdcore.results.journal import Journal
from kdcore.results.mlflow_store import MlflowStore
from kdcore.results.recording import Recorder
from kdcore.results.sending import Sender

SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks", "databricks-uc", "uc")
"""Kinds of address that MLflow knows without plugins of its own."""

EXAMPLES = "sqlite:///FILE.db or http://HOST:PORT"

SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Between two attempts to reach MLflow, in seconds."""


class Tracker(Recorder):
    """Records a run and sends the records to MLflow from a thread of its own. Training never waits for it.

    A record is sent once it is committed; a record sent twice, because a crash came between sending and noting it,
    counts once, since its time and its run are those of the first time.

    A checkpoint goes between the two halves of a commit, so that what was sent is never more than what is kept:
    ``position = tracker.flush()``, save the checkpoint with `position` in it, ``tracker.commit()``. To resume, open the
    same folder and `rewind` to the checkpoint's position (0 without one).

    Args:
        folder: Where journal and copies of artifacts are kept.
        uri: An MLflow server or database; None for the journal's own, else ``MLFLOW_TRACKING_URI``, else
            ``mlflow.db`` in the current folder.
        experiment: MLflow experiment; made if absent.
        say: Is given each line meant for the user.

    Raises:
        KdcoreError: If `uri` is of no kind that can be used, or the journal is damaged.
    """

    def __init__(self, folder: Path, uri: str | None = None, experiment: str = "kdcore", say: Callable[[str], None] = print):
        super().__init__(Journal(folder, resolved := tracking_address(uri), experiment))
        self._say = say
        self.uri = resolved if uri else self._journal.header["uri"]
        self._sender = _sender(self._journal, self.uri, say)
        self._wake, self._closing, self._given_up = threading.Condition(), False, threading.Event()
        self._thread: threading.Thread | None = None
        self._trouble = ""

    def flush(self) -> int:
        """Make all records durable, and return the position for a checkpoint. Nothing of it is sent before `commit`."""
        return self._journal.flush()

    def commit(self) -> int:
        """Make all records durable and send them, in time; returns `position`."""
        with self._wake:
            self._journal.commit()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="kdcore-tracking", daemon=True)
                self._thread.start()
            self._wake.notify_all()
        return self.position

    @property
    def position(self) -> int:
        """How much of the journal is committed, in bytes."""
        return self._journal.committed

    def under_way(self) -> list[str]:
        """Local names of the runs that have begun and not ended, by what is committed; the latest first."""
        found: dict[str, None] = {}
        for _, record in self._journal.read(0):
            if record["kind"] == "start":
                found[record["run"]] = None
            elif record["kind"] == "finish":
                found.pop(record["run"], None)
        return list(reversed(found))

    def rewind(self, position: int) -> None:
        """Forget all records after `position`.

        Raises:
            RuntimeError: If they may be on their way already: rewind before committing anything new.
        """
        if position < self.position and self._thread is not None:
            raise RuntimeError("records already committed by this process cannot be taken back")
        self._journal.rewind(position)
        self._sender.sent = min(self._sender.sent, self._journal.end)

    def close(self, timeout: float = 30) -> bool:
        """Wait until all committed records are sent, at most `timeout` seconds; say so if some are not."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join(timeout)
        self._given_up.set()
        waiting = self._sender.waiting()
        if waiting:
            self._say(
                f"tracking: {self._trouble + '; ' if self._trouble else ''}{waiting} records wait in {self.folder}; "
                f"`kdcore sync {self.folder}` sends them to {without_password(self.uri)}"
            )
        self._journal.close()
        return not waiting

    def run_ids(self) -> dict[str, str]:
        """Local name → MLflow run id, of the runs that MLflow knows by now."""
        return dict(self._sender.runs)

    def describe(self) -> str:
        """How to look at what was tracked."""
        experiment = f"experiment {self._journal.header['experiment']!r}"
        if self.uri.startswith("http"):
            return f"{experiment} at {without_password(self.uri)}"
        return f"{experiment}: mlflow ui --backend-store-uri {shlex.quote(without_password(self.uri))}"

    def _work(self) -> None:
        failures, warned = 0, False
        while not self._given_up.is_set():
            with self._wake:
                self._wake.wait_for(lambda: self._closing or self._sender.sent < self.position)
                closing = self._closing
            try:
                self._sender.send(self._given_up.is_set)
                failures, self._trouble = 0, ""
            except Exception as error:
                failures, self._trouble = failures + 1, _trouble(self.uri, error)
                # The first failure may be two runs making one database; it is worth a second try before a word.
                if failures == 2 and not warned:
                    warned = True
                    self._say(f"tracking: {self._trouble}; training goes on, records are kept in {self.folder}")
                with self._wake:
                    self._wake.wait_for(lambda: self._closing, min(2.0 ** (failures - 1), LONGEST_PAUSE))
                self._given_up.wait(SHORTEST_PAUSE)
            if closing and (failures > 2 or self._sender.sent >= self.position):
                return


class NullTracker:
    """Has the methods of `Tracker` and does nothing: for every process of a run but the first."""

    position = 0
    uri = ""

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name not in ("start", "metrics", "params", "tags", "artifact", "dataset", "model", "finish", "rewind"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None

    def flush(self) -> int:
        """Nothing is recorded."""
        return 0

    def commit(self) -> int:
        """Nothing is sent."""
        return 0

    def under_way(self) -> list[str]:
        """There are none."""
        return []

    def close(self, timeout: float = 30) -> bool:
        """There is nothing to wait for."""
        return True

    def run_ids(self) -> dict[str, str]:
        """There are none."""
        return {}

    def describe(self) -> str:
        """There is nothing to look at."""
        return ""


def sync(folder: Path, uri: str | None = None, say: Callable[[str], None] = print) -> int:
    """Send what a run's journal holds and MLflow does not know yet.

    Args:
        folder: The tracker's folder.
        uri: Where to, if not where the run was to be tracked: everything is then sent there.
        say: Is given each line meant for the user.

    Returns:
        How many records were sent.

    Raises:
        KdcoreError: If there is no journal, or MLflow cannot be reached; what was sent until then stays sent.
    """
    journal = Journal(folder, writable=False)
    sender = _sender(journal, tracking_address(uri) if uri else journal.header["uri"], say)
    try:
        return sender.send()
    except Exception as error:
        raise KdcoreError(f"{_trouble(sender.uri, error)}; {sender.waiting()} records still wait in {folder}") from error


def tracked_runs(run: Path) -> tuple[str, dict[str, str]]:
    """Where the run in this folder is tracked, and MLflow's ids of its runs, ``root``, ``seed-0`` …

    Raises:
        KdcoreError: If there is no journal.
    """
    journal = Journal(run / "tracking", writable=False)
    return journal.header["uri"], dict(_sender(journal, journal.header["uri"], print).runs)


def _sender(journal: Journal, uri: str, say: Callable[[str], None]) -> Sender:
    return Sender(journal, uri, lambda: MlflowStore(uri, journal.header["experiment"], journal.header["id"]), say)


def tracking_address(uri: str | None) -> str:
    """Where MLflow is: at `uri`, else ``$MLFLOW_TRACKING_URI``, else in ``mlflow.db`` of the current folder; whole, if a file.

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
        raise UsageError(f"MLflow tracks to no address of the kind {scheme}:// ({without_password(uri)}): write {EXAMPLES}")
    return uri


def _provided(scheme: str) -> bool:
    """Whether a plugin of MLflow's knows the scheme."""
    return any(point.name == scheme for point in entry_points(group="mlflow.tracking_store"))


def without_password(uri: str) -> str:
    """An address for people to read."""
    return re.sub(r"//[^/@]*@", "//", uri)


def _trouble(uri: str, error: Exception) -> str:
    return f"MLflow at {without_password(uri)} cannot be used ({one_line(error)})"
