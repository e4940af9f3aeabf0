"""Run several kdcore commands in parallel processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kdcore import StoppedError

PAUSE = 0.2
"""Interval at which processes are polled, in seconds."""


@dataclass(frozen=True)
class Job:
    """A command to run.

    Args:
        label: Name in messages and of the log file.
        words: Arguments of ``kdcore``.
    """

    label: str
    words: Sequence[str]


def run_jobs(jobs: Sequence[Job], at_once: int, logs: Path, say: Callable[[str], None]) -> dict[str, int]:
    """Run all jobs, at most `at_once` at a time. Their output goes to files in `logs`; the cores are divided among them.

    Returns:
        Label → exit status.

    Raises:
        StoppedError: On SIGTERM, after all jobs were asked to stop and have ended.
    """
    waiting, running, ended = list(jobs), {}, {}
    threads = max(1, (os.cpu_count() or 1) // at_once)
    logs.mkdir(parents=True, exist_ok=True)
    with _raise_on_sigterm():
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    job = waiting.pop(0)
                    running[job.label] = _start(job, threads, logs)
                    say(f"{job.label}: started")
                for label in [label for label, process in running.items() if process.poll() is not None]:
                    ended[label] = running.pop(label).returncode
                    say(f"{label}: " + ("done" if not ended[label] else f"failed: {_last_line(_log(logs, label))}"))
                time.sleep(PAUSE)
        finally:
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.wait()
    return ended


def _start(job: Job, threads: int, logs: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with open(_log(logs, job.label), "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "kdcore", *job.words],
            env=environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )


def _log(logs: Path, label: str) -> Path:
    return logs / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', label)}.log"


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return f"{lines[-1] if lines else 'no output'} ({path})"


@contextmanager
def _raise_on_sigterm():
    """Raise StoppedError on SIGTERM, so that the jobs are stopped, too."""

    def stop(*_: object) -> None:
        raise StoppedError("stopped; run the same command to continue")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
