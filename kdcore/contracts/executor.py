"""Executors: where the commands of ``--jobs`` run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """A kdcore command that depends on no other one, such as the training of a fold.

    Running it again does what is left: finished runs are reused, interrupted ones are resumed.

    Args:
        label: Name in messages.
        words: Arguments of ``kdcore``.
        log: File to which its output is appended.
    """

    label: str
    words: Sequence[str]
    log: Path


class StartedJob(ABC):
    """A job that an executor has started."""

    @abstractmethod
    def status(self) -> int | None:
        """The exit status of the command; None while it waits or runs.

        A negative status means that it was lost: killed by a signal, or with the process or machine that ran it.
        """

    @abstractmethod
    def stop(self) -> None:
        """Ask the command to save its state and end, without waiting for that; `status` tells when it has ended."""


class Executor(ABC):
    """Runs kdcore commands somewhere: in processes of this machine, or on others that see the same files.

    A plugin registers it with the hook ``register_executors``; the parameters of its constructor are its options. A constructor
    raises `kdcore.UsageError` where it cannot be used, such as without the library that it needs, and says what to do.
    """

    @abstractmethod
    def start(self, job: Job, at_once: int) -> StartedJob:
        """Start a job.

        Args:
            job: The job.
            at_once: Number of jobs that run at a time.
        """

    def close(self) -> None:  # noqa: B027  # most hold nothing
        """Release what the executor holds, such as a connection, after the last job has ended."""
