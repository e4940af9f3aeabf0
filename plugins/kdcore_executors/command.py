"""A kdcore command, with what it takes from the process that gives it, so that it can be run elsewhere."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdcore import Job

PAUSE = 0.2
"""Interval at which a process is polled, in seconds."""

LOST = -signal.SIGKILL
"""Status of a command that ended with the process or machine that ran it."""

THREADS = "OMP_NUM_THREADS"

TAKEN_ALONG = ("KDCORE_", "MLFLOW_")
"""Beginnings of the names of environment variables that a command takes along to another machine."""

PLACES = ("KDCORE_RUNS", "KDCORE_CACHE", "KDCORE_DATA")
"""Variables with a folder, which counts from the current one."""

_DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of Linux's prctl."""

_LIBC: Any = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Command:
    """A command that any machine with the same kdcore and the same files can run.

    Args:
        words: Arguments of ``kdcore``.
        folder: The folder that it runs in.
        environment: Variables that it sets, beside those of the machine.
        log: File to which its output is appended.
    """

    words: tuple[str, ...]
    folder: str
    environment: Mapping[str, str]
    log: str

    @classmethod
    def of(cls, job: Job, threads: int, taken_along: tuple[str, ...] = TAKEN_ALONG) -> Command:
        """The command of a job, with as many CPU threads as this process was told to use, else `threads`.

        Args:
            job: The job.
            threads: Number of threads.
            taken_along: Beginnings of the names of the environment variables that it takes along.
        """
        taken = {name: value for name, value in os.environ.items() if name.startswith(taken_along)}
        taken |= {name: os.path.abspath(taken[name]) for name in PLACES if taken.get(name)}
        taken[THREADS] = os.environ.get(THREADS) or str(threads)
        return cls(tuple(job.words), os.getcwd(), taken, str(job.log.absolute()))

    def start(self) -> subprocess.Popen[bytes]:
        """Run it in a process of this machine, which is asked to stop when the calling one dies."""
        Path(self.log).parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "kdcore", *self.words],
                cwd=self.folder,
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                preexec_fn=_stop_with_parent if sys.platform == "linux" else None,
            )

    def run(self) -> int:
        """Run it to its end, and return its exit status, negative for a signal.

        Raises:
            BaseException: Whatever interrupts the calling process, once the command has saved its state and ended.
        """
        process = self.start()
        try:
            while process.poll() is None:  # a thread that waits in the system would not see an interrupt
                time.sleep(PAUSE)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        return process.returncode


def _stop_with_parent() -> None:
    _LIBC.prctl(_DIE_WITH_PARENT, signal.SIGTERM)
