"""The journal: what a run tracks, on disk before anything is sent anywhere."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kdcore.errors import KdcoreError, TrainingError

COMMIT = b'{"kind": "commit"}\n'


class Journal:
    """An append-only file of JSON lines, ``<folder>/journal.jsonl``.

    Its first line says where the records belong. Records count once a line ``commit`` follows them: what stands behind
    the last one belongs to training that a killed run has to do again.

    Args:
        folder: Where it lies; made if absent.
        uri: Where a new journal's records are to be sent.
        experiment: MLflow experiment of a new journal.
        writable: Whether records will be added; a reader changes nothing on disk.

    Raises:
        KdcoreError: If a reader finds no journal, or the file is not a journal.
    """

    def __init__(self, folder: Path, uri: str = "", experiment: str = "", *, writable: bool = True):
        self.path = folder / "journal.jsonl"
        if not writable and not self.path.is_file():
            raise KdcoreError(f"{folder} holds no journal of a run (journal.jsonl)")
        whole, self.committed = b"", 0
        if self.path.is_file():
            # A line without its end is one that a crash cut short.
            content = self.path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            self.committed = _after_last_commit(whole)
        self.end = len(whole)
        if writable:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab", buffering=0)
            self._file.truncate(self.end)
        if writable and not whole:
            self.append({"kind": "journal", "id": uuid.uuid4().hex, "uri": uri, "experiment": experiment})
        self.header = self._header()

    def _header(self) -> dict[str, str]:
        with self.path.open("rb") as file:
            line = file.readline()
        try:
            header = json.loads(line)
            self._body = len(line)
            return {key: header[key] for key in ("id", "uri", "experiment")}
        except (ValueError, KeyError, TypeError) as error:
            raise KdcoreError(f"{self.path} is not a journal: its first line does not say where its records belong") from error

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record; it is with the operating system when this returns.

        Raises:
            TrainingError: If the disk does not take it.
        """
        self._write(json.dumps(record).encode() + b"\n")

    def flush(self) -> int:
        """Make everything so far durable.

        Returns:
            Where the journal ends, in bytes: what a checkpoint remembers for `rewind`.
        """
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise TrainingError(f"cannot write {self.path}: {error.strerror}") from error
        return self.end

    def commit(self) -> int:
        """Make everything so far durable and valid, and return where the journal ends."""
        if self.end > self.committed:
            self._write(COMMIT)
            self.flush()
            self.committed = self.end
        return self.committed

    def rewind(self, position: int) -> None:
        """Forget what was added after `position`, and commit what is left."""
        content = self.path.read_bytes()[: max(position, self._body)]
        self.end = content.rfind(b"\n") + 1
        self.committed = _after_last_commit(content)
        self._file.truncate(self.end)
        self.commit()

    def read(self, start: int, stop: int | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Records from byte `start` to `stop` (to the last commit, if not given), each with the position after it."""
        position, stop = max(start, self._body), self.committed if stop is None else stop
        with self.path.open("rb") as file:
            file.seek(position)
            while position < stop:
                line = file.readline()
                position += len(line)
                if line != COMMIT:
                    yield position, json.loads(line)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _write(self, line: bytes) -> None:
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(0, "the disk is full")
        except OSError as error:
            self._file.truncate(self.end)
            raise TrainingError(f"cannot write {self.path}: {error.strerror}") from error
        self.end += len(line)


def _after_last_commit(content: bytes) -> int:
    return content.rfind(COMMIT) + len(COMMIT) if COMMIT in content else 0
