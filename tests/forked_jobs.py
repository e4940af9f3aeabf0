"""The processes of ``--jobs``, forked from one that has loaded what is slow to load."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing import current_process
from multiprocessing.connection import Client, Connection, Listener
from multiprocessing.context import BaseContext
from types import SimpleNamespace
from typing import IO, Any

PAUSE = 0.05


class JobServer:
    """Starts jobs in the process of the tests, on behalf of commands that run in processes of their own.

    Args:
        context: Forks them.
        work: What a job does with its (environment, folder, words, file for stdout, file for stderr).
    """

    def __init__(self, context: BaseContext, work: Callable[..., None]):
        self._context, self._work, self._lock = context, work, threading.Lock()
        self._listener = Listener(authkey=current_process().authkey)
        self.address = self._listener.address
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            threading.Thread(target=self._see_through, args=(self._listener.accept(),), daemon=True).start()

    def _see_through(self, asked: Connection) -> None:
        process = self._context.Process(target=self._work, args=asked.recv())  # type: ignore[attr-defined]
        with self._lock:  # looking for its exit status is not thread-safe
            process.start()
        asked.send(process.pid)
        status = None
        while status is None:
            time.sleep(PAUSE)
            with self._lock:
                status = process.exitcode
        try:
            asked.send(status)
        except OSError:  # the command was killed
            asked.close()


class ForkedJob:
    """As much of `subprocess.Popen` as a pool of jobs uses."""

    def __init__(self, address: Any, command: Sequence[str], env: Mapping[str, str], stdout: IO[bytes], **_: Any):
        assert command[:3] == [sys.executable, "-m", "kdcore"]
        self.returncode: int | None = None
        self._server = Client(address, authkey=current_process().authkey)
        self._server.send((dict(env), os.getcwd(), command[3:], stdout.name, stdout.name))
        self.pid = self._server.recv()

    def poll(self) -> int | None:
        if self.returncode is None and self._server.poll():
            self.returncode = self._server.recv()
        return self.returncode

    def wait(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._server.recv()
        return self.returncode

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)


def fork_jobs(address: Any) -> None:
    """Have this process's executors start forks rather than interpreters."""
    from kdcore_executors import command

    command.subprocess = SimpleNamespace(Popen=partial(ForkedJob, address), DEVNULL=subprocess.DEVNULL)  # type: ignore[assignment]
