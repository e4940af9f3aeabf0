"""The journal: a run's durable record of metrics, parameters and files, written before a tracker sends anything."""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
import shutil
import time
import unicodedata
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from kdcore.contracts.tracker import Tracker
from kdcore.errors import KdcoreError, TrainingError

KEY_LIMIT, PARAM_LIMIT, TAG_LIMIT = 250, 6000, 5000
"""Longest names, and values of parameters and tags, in characters."""

Status = Literal["FINISHED", "FAILED", "KILLED"]

COMMIT = b'{"kind": "commit"}\n'
MARKED = 4096
"""Bytes that `Journal.mark` looks at."""


class Journal:
    """An append-only file of JSON lines, ``<folder>/journal.jsonl``.

    Its first line is a header. Records are valid once a line ``commit`` follows them: records after the last commit belong to
    training steps that a killed run repeats.

    Args:
        folder: Folder of the journal; created if missing.
        uri: Tracking address of a new journal.
        experiment: MLflow experiment of a new journal.
        writable: Whether records will be added. A reader changes nothing on disk.

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
        """Truncate the journal at `position`, and commit."""
        content = self.path.read_bytes()[: max(position, self._body)]
        self.end = content.rfind(b"\n") + 1
        self.committed = _after_last_commit(content)
        self._file.truncate(self.end)
        self.commit()

    def read(self, start: int, stop: int | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Records from byte `start` to `stop` (to the last commit, if not given), each with the position after it.

        A line that is damaged is read as a record of kind ``damaged``, with the number of the line.
        """
        position, stop = max(start, self._body), self.committed if stop is None else stop
        with self.path.open("rb") as file:
            file.seek(position)
            while position < stop:
                line = file.readline()
                position += len(line)
                if line == COMMIT:
                    continue
                try:
                    record = json.loads(line)
                except ValueError:
                    number = self.path.read_bytes()[:position].count(b"\n")
                    record = {"kind": "damaged", "run": "", "line": number}
                yield position, record

    def mark(self, position: int) -> str:
        """A short hash of what comes before byte `position`, which tells whether the journal is still the same there."""
        with self.path.open("rb") as file:
            file.seek(max(0, position - MARKED))
            return hashlib.sha256(file.read(min(position, MARKED))).hexdigest()[:16]

    def close(self) -> None:
        """Close the file."""
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


class RunJournal:
    """Records a run in its journal, and tells the tracker which records are final.

    A run and its seeds have the local names ``root``, ``seed-0`` …

    To save a checkpoint, call ``position = journal.flush()``, save the checkpoint with `position`, then call
    ``journal.commit()``. In this order, no record is sent that a resumed run would repeat. To resume, open the same folder and
    `rewind` to the checkpoint's position (0 without a checkpoint).

    Args:
        folder: Folder of the journal and of copies of artifacts.
        tracker: Sends committed records; the default sends nothing.
        experiment: Experiment that the run belongs to.
    """

    def __init__(self, folder: Path, tracker: Tracker | None = None, experiment: str = "kdcore"):
        self.folder, self.tracker, self._begun = folder, tracker or Tracker(), False
        self.file = Journal(folder, self.tracker.address, experiment)
        self.tracker.open(self.file)

    @property
    def position(self) -> int:
        """The number of bytes of the journal that are committed."""
        return self.file.committed

    def flush(self) -> int:
        """Make all records durable, and return the position for a checkpoint. Nothing of it is sent before `commit`."""
        return self.file.flush()

    def commit(self) -> int:
        """Make all records durable and final; returns `position`."""
        self._begun = True
        self.file.commit()
        self.tracker.committed()
        return self.position

    def rewind(self, position: int) -> None:
        """Forget all records after `position`.

        Raises:
            RuntimeError: If some of them may have been sent already: rewind before committing anything new.
        """
        if position < self.position and self._begun:
            raise RuntimeError("records already committed by this process cannot be taken back")
        self.tracker.rewind(position)
        self.file.rewind(position)

    def under_way(self) -> list[str]:
        """Local names of the runs that have begun and not ended, by what is committed; the latest first."""
        runs: dict[str, None] = {}
        for _, record in self.file.read(0):
            if record["kind"] == "start":
                runs[record["run"]] = None
            elif record["kind"] == "finish":
                runs.pop(record["run"], None)
        return list(reversed(runs))

    def close(self, timeout: float = 30) -> bool:
        """Wait at most `timeout` seconds until the tracker has sent everything; returns whether it has."""
        sent = self.tracker.close(timeout)
        self.file.close()
        return sent

    def start(
        self,
        run: str,
        name: str,
        parent: str | None = None,
        tags: Mapping[str, object] | None = None,
        params: Mapping[str, object] | None = None,
    ) -> None:
        """Begin a run, or resume it if it has begun.

        Args:
            run: What it is called here.
            name: What a tracker calls it.
            parent: The run it belongs to, by its local name.
            tags: Tags of the run.
            params: Its parameters.
        """
        self.record("start", run, name=name, parent=parent, tags=_texts(tags or {}, TAG_LIMIT))
        self.params(run, params or {})

    def metrics(self, run: str, values: Mapping[str, float], step: int) -> None:
        """Record numbers of one step."""
        self.record("metrics", run, step=int(step), values={_key(name): float(value) for name, value in values.items()})
        self.tracker.recorded()

    def params(self, run: str, values: Mapping[str, object]) -> None:
        """Record parameters; one that is too long is cut short, and kept whole as an artifact."""
        if values:
            self.record("params", run, values=as_params(values))
        for name, value in values.items():
            if len(str(value)) > PARAM_LIMIT:
                file = self.place(run, "params") / f"{_key(name).replace('/', '.')}.txt"
                file.write_text(str(value), encoding="utf-8")
                self.record("artifact", run, file=file.relative_to(self.folder).as_posix(), to="params")

    def tags(self, run: str, values: Mapping[str, object]) -> None:
        """Record tags; a later value replaces an earlier one."""
        self.record("tags", run, values=_texts(values, TAG_LIMIT))

    def artifact(self, run: str, path: Path, folder: str = "") -> None:
        """Record a file or folder; it is copied at once, so the original may change or go."""
        self.record("artifact", run, file=self.keep(run, path, folder), to=folder)

    def finish(self, run: str, status: Status = "FINISHED") -> None:
        """End a run. Where it was cut short, ``rewind(position)`` before drops what a resumed run does again."""
        self.record("finish", run, status=status)

    def record(self, kind: str, run: str, **content: Any) -> None:
        """Add a record of any kind that a tracker understands."""
        self.file.append({"kind": kind, "run": run, "time": time.time_ns() // 1_000_000, **content})

    def keep(self, run: str, path: Path, folder: str = "") -> str:
        """Copy a file or folder beside the journal; returns the copy's path relative to it."""
        return _copy(path, self.place(run, folder)).relative_to(self.folder).as_posix()

    def place(self, run: str, folder: str) -> Path:
        """A folder beside the journal for a run's files."""
        place = self.folder / "artifacts" / run / folder
        place.mkdir(parents=True, exist_ok=True)
        return place


def _after_last_commit(content: bytes) -> int:
    return content.rfind(COMMIT) + len(COMMIT) if COMMIT in content else 0


def as_params(values: Mapping[str, object]) -> dict[str, str]:
    """Parameters as they are recorded."""
    return _texts(values, PARAM_LIMIT)


def _key(name: str) -> str:
    """A name that every tracker takes; one that had to be changed ends with a digest of it, so that no two become one."""
    name = unicodedata.normalize("NFC", name)
    key = re.sub(r"[^\w.\-/ ]", "_", name)
    if posixpath.normpath(f"x/{key}") != f"x/{key}":  # trackers take names for paths
        key = re.sub(r"^\.+$|/", "_", key)
    if key == name and len(key) <= KEY_LIMIT:
        return key
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{key[: KEY_LIMIT - 9]}-{digest}"


def _texts(values: Mapping[str, object], limit: int) -> dict[str, str]:
    texts = {_key(name): str(value) for name, value in values.items()}
    return {name: text if len(text) <= limit else text[: limit - 1] + "…" for name, text in texts.items()}


def _copy(path: Path, folder: Path) -> Path:
    copy = folder / path.name
    if path.is_dir():
        shutil.copytree(path, copy, dirs_exist_ok=True)
    elif path.resolve() != copy.resolve():
        temporary = copy.with_name(f"{copy.name}.new")
        shutil.copyfile(path, temporary)
        temporary.replace(copy)
    return copy


def changed_keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Keys whose values differ, or that only one of two mappings has, in order."""
    return [key for key in dict.fromkeys((*before, *after)) if before.get(key) != after.get(key)]


def flattened(values: Any, path: str = "") -> dict[str, Any]:
    """Nested mappings and lists as ``a.b.0.c`` → value; terms go by their ids, ``losses.acs.weight``, not by their places."""
    if isinstance(values, Mapping) and values:
        return {
            key: value
            for name, each in values.items()
            for key, value in flattened(each, f"{path}.{name}" if path else str(name)).items()
        }
    if isinstance(values, list) and values and any(isinstance(each, dict | list) for each in values):
        ids = [each.get("id") if isinstance(each, dict) else None for each in values]
        steps = ids if all(ids) else range(len(values))
        return {
            key: value
            for step, each in zip(steps, values, strict=True)
            for key, value in flattened(each, f"{path}.{step}").items()
        }
    return {path: values}
