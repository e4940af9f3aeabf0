"""Stop a run on SIGTERM or Ctrl-C after its state is saved."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kdcore.errors import StoppedError


@dataclass
class Interrupts:
    """Handles SIGTERM and Ctrl-C as requests to stop.

    Args:
        say: Shows a line to the user.
        stop: Called to request the stop.
        signal: Number of the received signal; 0 if none.
    """

    say: Callable[[str], None]
    stop: Callable[[], None]
    signal: int = 0

    @property
    def requested(self) -> bool:
        """True once a signal asked to stop."""
        return self.signal != 0

    @property
    def by_keyboard(self) -> bool:
        """True if Ctrl-C asked to stop."""
        return self.signal == signal.SIGINT

    def error(self, message: str) -> StoppedError:
        """The error that ends the process with the exit status of the signal."""
        error = StoppedError(message)
        error.exit_code = 128 + (self.signal or signal.SIGTERM)
        return error

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Take SIGTERM and Ctrl-C as requests to stop. A second Ctrl-C stops at once."""

        def ask(number: int, _: object) -> None:
            if number == signal.SIGINT:
                signal.signal(signal.SIGINT, before[signal.SIGINT])
                self.say("stopping after this step; press Ctrl-C again to stop at once, without saving")
            self.signal = number
            self.stop()

        before: dict[int, Any] = {}
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                before[number] = signal.signal(number, ask)
        except ValueError:  # not in the main thread: the caller handles signals
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
