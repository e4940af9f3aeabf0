"""Ctrl-C, told from a plugin that raises KeyboardInterrupt."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """Yield a list that fills when the user presses Ctrl-C, which tells that from a plugin that raises KeyboardInterrupt."""
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
    """Within it, code of a plugin may raise anything, even end the process: `failed` is told. A user's Ctrl-C goes on."""
    received: list[int] = []
    try:
        with interrupts() as received:
            yield
    except BaseException as error:
        if received:
            raise
        failed(error)
