"""Jobs as processes of this machine."""

from __future__ import annotations

import os
import subprocess

from kdcore import Executor, Job, StartedJob
from kdcore_executors.command import Command


class LocalExecutor(Executor):
    """Runs each job in a process of this machine. The CPU cores are divided among them, unless ``OMP_NUM_THREADS`` is set."""

    def start(self, job: Job, at_once: int) -> StartedJob:
        """Start the process."""
        return _Process(Command.of(job, max(1, (os.cpu_count() or 1) // at_once)).start())


class _Process(StartedJob):
    def __init__(self, process: subprocess.Popen[bytes]):
        self._process = process

    def status(self) -> int | None:
        return self._process.poll()

    def stop(self) -> None:
        self._process.terminate()
