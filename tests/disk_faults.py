"""Operations of the file system that fail on demand: opening for writing, writing, syncing, renaming, making folders."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EVENTS = ("open", "os.mkdir", "os.rename", "os.truncate", "os.link")


class Faults:
    """Counts operations that change files below a folder, and lets one of them fail.

    Args:
        folder: Where operations count.
        at: Which of them fails, counted from 1; 0 for none.
        error: What it fails with.
    """

    def __init__(self, folder: Path, at: int = 0, error: int = 0):
        self.folder, self.at, self.error, self.count = str(folder), at, error, 0

    def happens(self, path: object) -> None:
        """An operation on `path` is about to happen."""
        if not isinstance(path, str | bytes | os.PathLike) or not os.fsdecode(path).startswith(self.folder):
            return
        self.count += 1
        if self.count == self.at:
            raise OSError(self.error, os.strerror(self.error), os.fsdecode(path))


_active: list[Faults] = []


def _audit(event: str, arguments: tuple) -> None:
    if not _active or event not in EVENTS:
        return
    if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
        return
    _active[-1].happens(arguments[0])


sys.addaudithook(_audit)


@contextmanager
def faults(folder: Path, at: int = 0, error: int = 0) -> Iterator[Faults]:
    """Within it, the operations below `folder` are counted, and the one at `at` fails with the number `error`."""
    made = Faults(folder, at, error)
    fsync = os.fsync

    def synced(descriptor: int) -> None:
        made.happens(f"{made.folder}/synced")
        fsync(descriptor)

    os.fsync = synced
    _active.append(made)
    try:
        yield made
    finally:
        _active.pop()
        os.fsync = fsync
