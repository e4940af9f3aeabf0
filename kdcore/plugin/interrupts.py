"""Distinguish Ctrl-C from a KeyboardInterrupt raised by a plugin."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """Context manager that yields a list to which each Ctrl-C (SIGINT) is appended."""
    received: list[int] = []
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield received
        return

    def note(number: int, frame: Any) -> Any:
        received.append(number)
        return handler(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield received
    finally:
        signal.signal(signal.SIGINT, handler)


@contextmanager
def guarded(failed: Callable[[BaseException], None]) -> Iterator[None]:
    """Context manager for plugin code: passes any exception, even SystemExit, to `failed`. Ctrl-C is re-raised."""
    received: list[int] = []
    try:
        with interrupts() as received:
            yield
    except BaseException as error:
        if received:
            raise
        failed(error)
