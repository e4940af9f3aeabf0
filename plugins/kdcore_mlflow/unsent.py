"""Records that a run could not send before it ended. They are sent at the end of the next command."""

from __future__ import annotations

import os
import shlex
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from kdcore import Journal, KdcoreError, runs_folder

PATIENCE = 10.0
"""Time that a command waits at its end while records of earlier runs are sent, in seconds."""

PAUSE = 60.0
"""Time after which failed records are tried again, in seconds."""

Send = Callable[[Path, threading.Event], int]


def notes() -> Path:
    """Return the folder with one note per journal with unsent records; the name of a note is the ID of the journal."""
    return runs_folder() / ".unsent"


def note_unsent(journal: Journal) -> None:
    """Note that a journal has unsent records."""
    with suppress(OSError):  # the records are safe even without the note
        notes().mkdir(parents=True, exist_ok=True)
        note = notes() / journal.header["id"]
        note.write_text(f"{os.getpid()} {journal.path.parent.absolute()}", encoding="utf-8")
        os.utime(note, (0, 0))  # not tried yet


def forget_unsent(journal: Journal) -> None:
    """Remove the note of a journal."""
    with suppress(OSError):
        (notes() / journal.header["id"]).unlink()
        notes().rmdir()


def folders_of_unsent() -> dict[Path, Path]:
    """Return folders of journals with unsent records by note, except those of this process. Stale notes are removed."""
    found = {}
    for note in sorted(notes().glob("*")):
        process, _, name = note.read_text(encoding="utf-8").partition(" ")
        if not (Path(name) / "journal.jsonl").is_file():
            note.unlink(missing_ok=True)
        elif process != str(os.getpid()):
            found[note] = Path(name)
    return found


def send_unsent(send: Send, say: Callable[[str], None], seconds: float = PATIENCE) -> None:
    """Send records of earlier runs for a limited time, and print the result. Exceptions are not raised.

    Args:
        send: Sends the records in a folder until its event is set, and returns their number, e.g. `tracker.sync`.
        say: Called with each line for the user.
        seconds: Maximum duration in seconds.
    """
    deadline, stop = time.monotonic() + seconds, threading.Event()
    for note, folder in folders_of_unsent().items():
        if time.time() - note.stat().st_mtime < PAUSE:
            continue
        os.utime(note)
        result: list[str] = []
        thread = threading.Thread(target=_send, args=(send, folder, stop, result), daemon=True)
        thread.start()
        thread.join(max(0.0, deadline - time.monotonic()))
        say(result[0] if result else f"tracking: MLflow responds slowly; {waiting_in(folder)}")
        if not result:
            stop.set()
            return


def waiting_in(folder: Path) -> str:
    """Return a sentence about the unsent records in a journal's folder."""
    return f"records wait in {folder}; `kdcore sync {shlex.quote(str(folder))}` sends them, and the next command also tries to"


def _send(send: Send, folder: Path, stop: threading.Event, result: list[str]) -> None:
    try:
        count = send(folder, stop)
        result.append(f"tracking: {count} records that were waiting in {folder} are sent")
    except KdcoreError as error:
        result.append(f"tracking: {error}; {waiting_in(folder)}")
    except Exception as error:  # an error here must not fail a successful command
        result.append(f"tracking: {type(error).__name__}: {error}; {waiting_in(folder)}")
