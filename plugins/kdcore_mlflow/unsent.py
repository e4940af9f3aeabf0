"""Records that a run could not send before it ended: noted beside the runs, and sent at the end of the next command."""

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
"""Seconds that a command waits at its end while records of earlier runs are sent."""

PAUSE = 60.0
"""Seconds after which what could not be sent is tried again."""

Send = Callable[[Path, threading.Event], int]


def notes() -> Path:
    """The folder of notes, one for each journal with unsent records; its name is the journal's id."""
    return runs_folder() / ".unsent"


def note_unsent(journal: Journal) -> None:
    """Note that a journal has records to send."""
    with suppress(OSError):  # its records are safe without the note
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
    """Note → folder of a journal with unsent records, without those this process left; notes of what is gone are removed."""
    found = {}
    for note in sorted(notes().glob("*")):
        process, _, name = note.read_text(encoding="utf-8").partition(" ")
        if not (Path(name) / "journal.jsonl").is_file():
            note.unlink(missing_ok=True)
        elif process != str(os.getpid()):
            found[note] = Path(name)
    return found


def send_unsent(send: Send, say: Callable[[str], None], seconds: float = PATIENCE) -> None:
    """Send what earlier runs left, for a while, and say what became of it. Nothing is raised.

    Args:
        send: Sends the records in a folder until its event is set, and returns how many went; such as `tracker.sync`.
        say: Is given each line meant for the user.
        seconds: The longest time that this takes.
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
    """A sentence on the records that wait in a journal's folder."""
    return f"records wait in {folder}; `kdcore sync {shlex.quote(str(folder))}` sends them, as the next command tries to"


def _send(send: Send, folder: Path, stop: threading.Event, result: list[str]) -> None:
    try:
        count = send(folder, stop)
        result.append(f"tracking: {count} records that were waiting in {folder} are sent")
    except KdcoreError as error:
        result.append(f"tracking: {error}; {waiting_in(folder)}")
    except Exception as error:  # nothing here may fail a command that has succeeded
        result.append(f"tracking: {type(error).__name__}: {error}; {waiting_in(folder)}")
