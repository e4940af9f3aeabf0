"""Sending of a journal to a tracking store, so that each record counts exactly once."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from kdcore import Journal, KdcoreError

RECORDS_AT_ONCE, METRICS_AT_ONCE = 500, 1000

Record = Mapping[str, Any]


class RefusedError(Exception):
    """Raised for a record that will never be accepted."""


class Store(Protocol):
    """A destination of records. Sending a record twice has no effect."""

    def start(self, record: Record, parent: str | None) -> str:
        """Start or continue a run, and return its ID in the store."""
        ...

    def send(self, run: str, records: Sequence[Record], folder: Path) -> None:
        """Send one record, or several of kind ``metrics``, of the run with this ID.

        Raises:
            RefusedError: If another attempt is useless. After any other exception, sending may be tried again.
        """
        ...


class Sender:
    """Sends committed records in order, and stores its position in ``<folder>/sent.json``.

    Args:
        journal: Journal to send.
        uri: Destination. The position for another destination is ignored, so that all records are sent to a new one.
        connect: Opens the store; called when there is something to send, and again after a failure.
        say: Called with each line for the user.
    """

    def __init__(self, journal: Journal, uri: str, connect: Callable[[], Store], say: Callable[[str], None]):
        self.folder, self.uri = journal.path.parent, re.sub(r"//[^/?#\s]*@", "//", uri)
        self._journal, self._connect, self._say = journal, connect, say
        self._store: Store | None = None
        self._refused = False
        self.sent = 0
        self.runs: dict[str, str] = {}
        with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            note = json.loads(self._note.read_text(encoding="utf-8"))
            if note["uri"] == self.uri:
                self.runs = dict(note["runs"])
                # A journal that was cut and extended since is sent again from its start. Records sent twice count once.
                if 0 < note["sent"] <= journal.end and note["mark"] == journal.mark(note["sent"]):
                    self.sent = note["sent"]

    def rewind(self, position: int) -> None:
        """Store that nothing after byte `position` was sent, before the journal is cut there."""
        if position < self.sent:
            self._remember(position, durable=True)

    def waiting(self) -> int:
        """Return the number of committed records that are not sent."""
        return sum(1 for _ in self._journal.read(self.sent))

    def send(self, stop: Callable[[], bool] = lambda: False) -> int:
        """Send records until none are left or `stop` returns true, and return the number of records sent.

        Raises:
            KdcoreError: If another process is sending this journal.
            Exception: If the store is unavailable. The next call continues from there.
        """
        count, stopped, end = 0, stop(), self._journal.committed
        with _alone(self.folder):
            records = self._journal.read(self.sent, end)
            while not stopped and (batch := list(islice(records, RECORDS_AT_ONCE))):
                for group in _grouped(batch):
                    self._send([record for _, record in group])
                    self._remember(group[-1][0])
                    count += len(group)
                    if stopped := stop():
                        break
            if not stopped:
                self.sent = max(self.sent, end)
        return count

    def _send(self, records: Sequence[Record]) -> None:
        try:
            self._deliver(records)
        except RefusedError as error:
            if len(records) > 1:
                for record in records:
                    self._send([record])
            elif not self._refused:
                self._refused = True
                record = records[0]
                what = "a record" if record["kind"] == "damaged" else f"{record['kind']} of {record['run']!r}"
                self._say(f"tracking: {what} cannot be tracked and stays in {self.folder}, and others may, too: {error}")

    def _deliver(self, records: Sequence[Record]) -> None:
        if records[0]["kind"] == "damaged":
            raise RefusedError(f"{self._journal.path}:{records[0]['line']} is damaged")
        self._store = store = self._store or self._connect()
        run = records[0]["run"]
        if records[0]["kind"] == "start":
            self.runs[run] = store.start(records[0], self.runs.get(records[0]["parent"]))
        elif run not in self.runs:
            raise RefusedError(f"{run!r} was never started")
        else:
            self._refuse_other_files(records[0])
            store.send(self.runs[run], records, self.folder)

    def _refuse_other_files(self, record: Record) -> None:
        """Check that a record does not name a file outside the journal's folder, which a run from elsewhere must not send."""
        named = [record.get(key) for key in ("file", "code", "input_example")] + list(record.get("artifacts", {}).values())
        home = self.folder.resolve()
        for name in named:
            if isinstance(name, str) and not (self.folder / name).resolve().is_relative_to(home):
                raise RefusedError(f"{name!r} is outside the folder of the run's tracking")

    @property
    def _note(self) -> Path:
        return self.folder / "sent.json"

    def _remember(self, position: int, durable: bool = False) -> None:
        self.sent = position
        temporary = self._note.with_suffix(".new")
        note = {"uri": self.uri, "sent": position, "mark": self._journal.mark(position), "runs": self.runs}
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(note, file)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, self._note)


def _grouped(batch: Sequence[tuple[int, Record]]) -> Iterator[list[tuple[int, Record]]]:
    """Group consecutive metrics of a run; everything else is sent separately."""
    group, size = [], 0
    for item in batch:
        record = item[1]
        width = len(record["values"]) if record["kind"] == "metrics" else METRICS_AT_ONCE
        if group and (size + width > METRICS_AT_ONCE or record["run"] != group[0][1]["run"]):
            yield group
            group, size = [], 0
        group.append(item)
        size += width
    if group:
        yield group


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Context manager that prevents two processes from sending the same journal."""
    try:
        import fcntl
    except ImportError:  # a platform without file locks
        yield
        return
    with (folder / "sending.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise KdcoreError(f"another process is sending what is in {folder}") from error
        yield
