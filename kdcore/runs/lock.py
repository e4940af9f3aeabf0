"""Lock of a run's folder, so that only one process works on a run."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from kdcore.errors import CheckpointError

LOCK = "run.lock"
"""File in a run's folder that the process that works on the run keeps locked."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of the run in `folder`.

    The operating system frees the lock of a process that dies, however it dies, so a lock is never stale; the file
    ``run.lock.json`` beside it only names the holder.

    Raises:
        CheckpointError: If another process holds it; names that process.
    """
    lock, holder = FileLock(folder / LOCK), folder / f"{LOCK}.json"
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise CheckpointError(
            f"{folder.name} is being run by {_named(holder)}; wait until it ends, or stop that process"
        ) from error
    try:
        now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now}), encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _named(holder: Path) -> str:
    with suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {content['pid']} on {content['host']}, since {content['since']}"
    return "another process"
