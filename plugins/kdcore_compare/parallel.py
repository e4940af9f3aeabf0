"""Running of several kdcore commands in parallel by an executor."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from kdcore import Executor, Job, StartedJob, StoppedError, make_executor

PAUSE = 0.2
"""Interval at which jobs are polled, in seconds."""

ATTEMPTS = 3
"""Maximum number of starts of a job. A lost job is started again to resume its run elsewhere."""

LOCAL = "local"


@dataclass(frozen=True)
class Parallel:
    """The options ``--jobs`` and ``--executor``.

    Args:
        at_once: Number of jobs to run at a time.
        executor: ``NAME`` or ``{name: NAME, option: value, …}``.
    """

    at_once: int = 1
    executor: str = LOCAL

    @property
    def active(self) -> bool:
        """True unless commands simply run one after another in this process."""
        return self.at_once > 1 or self.executor != LOCAL

    def check(self) -> None:
        """Connect to the executor and disconnect, before anything is prepared for it.

        Raises:
            KdcoreError: If it cannot be used.
        """
        if self.active:
            make_executor(self.executor).close()

    def run(self, commands: Mapping[str, Sequence[str]], logs: Path, say: Callable[[str], None]) -> dict[str, int]:
        """Run commands, with their output in files of the folder `logs`.

        Args:
            commands: Arguments of ``kdcore``, by label.
            logs: Folder for output files.
            say: Called with each line for the user.

        Returns:
            Exit status by label.

        Raises:
            StoppedError: On SIGTERM, after all jobs have been asked to stop and have ended.
            KdcoreError: If the executor cannot be used.
        """
        with closing(make_executor(self.executor)) as executor, _raise_on_sigterm():
            return run_jobs(executor, [Job(label, words, _log(logs, label)) for label, words in commands.items()],
                            self.at_once, say)  # fmt: skip


SERIAL = Parallel()
"""Run jobs one after another in this process."""


def run_jobs(executor: Executor, jobs: Sequence[Job], at_once: int, say: Callable[[str], None]) -> dict[str, int]:
    """Run all jobs, at most `at_once` at a time. Lost jobs are started again, up to `ATTEMPTS` times.

    Returns:
        Exit status by label.
    """
    waiting, ended = list(jobs), {}
    running: dict[str, tuple[Job, StartedJob]] = {}
    started = dict.fromkeys((job.label for job in jobs), 0)
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                running[job.label] = job, executor.start(job, at_once)
                started[job.label] += 1
                say(f"{job.label}: started")
            for job, status in _ended(running):
                del running[job.label]
                if _is_lost(status) and started[job.label] < ATTEMPTS:
                    say(f"{job.label}: lost ({_reason(status)}); starting it again, to resume its run")
                    waiting.insert(0, job)
                    continue
                ended[job.label] = status
                say(f"{job.label}: " + ("done" if not status else f"failed: {_last_line(job.log)}"))
            if running:
                time.sleep(PAUSE)
    finally:
        for _, job in running.values():
            job.stop()
        for _, job in running.values():
            while job.status() is None:
                time.sleep(PAUSE)
    return ended


def _ended(running: Mapping[str, tuple[Job, StartedJob]]) -> list[tuple[Job, int]]:
    found = [(job, started.status()) for job, started in running.values()]
    return [(job, status) for job, status in found if status is not None]


def _is_lost(status: int) -> bool:
    """Return whether a command was ended from outside: killed, or asked to stop, which exits with 128 + signal."""
    return status < 0 or status == 128 + signal.SIGTERM


def _reason(status: int) -> str:
    if status == 128 + signal.SIGTERM:
        return "it was stopped"
    try:
        return f"killed by {signal.Signals(-status).name}, or its machine did not answer"
    except ValueError:
        return f"exit status {status}"


def _log(logs: Path, label: str) -> Path:
    return logs / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', label)}.log"


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return f"{lines[-1] if lines else 'no output'} ({path})"


@contextmanager
def _raise_on_sigterm() -> Iterator[None]:
    """Raise StoppedError on SIGTERM, so that the jobs are stopped, too."""

    def stop(*_: object) -> None:
        raise StoppedError("stopped; run the same command to continue")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
