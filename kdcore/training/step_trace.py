"""Chrome traces of a few training steps."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch

SKIPPED, TRACED = 3, 8
"""Steps of a stage before those that are traced, in which libraries warm up; and steps that are traced."""

_KINETO = re.compile(rb"^\w+:\d{4}-\d\d-\d\d .*\.cpp:\d+\].*\n", re.MULTILINE)


class StepTrace:
    """Records some steps of each stage with torch's profiler, and writes them as traces for ``chrome://tracing`` or Perfetto.

    Operators are on the timeline together with the phases of `Phases`. Nothing that training computes is changed.

    Args:
        folder: Where ``PREFIX-STAGE.json`` is written.
        prefix: Of the files' names.
        steps: Steps to record of a stage.
    """

    def __init__(self, folder: Path, prefix: str, steps: int = TRACED):
        self.folder, self.prefix, self.steps = folder, prefix, steps
        self._file, self._start = "", 0
        self._profiler: Any = None
        self._phase: Any = None

    def begin_stage(self, name: str, steps: int) -> None:
        """A stage begins, of so many steps in all."""
        self._file = f"{self.prefix}-{name.replace('/', '-')}.json"
        self._start = max(0, min(SKIPPED, steps - self.steps))

    def begin_step(self, step: int) -> None:
        """Step `step` of the stage begins, counted from 0 where this process began with it."""
        if step == self._start:
            activities = [torch.profiler.ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(torch.profiler.ProfilerActivity.CUDA)
            self._profiler = torch.profiler.profile(activities=activities)
            with _without_kineto_log():
                self._profiler.start()
        elif step == self._start + self.steps:
            self.end_stage()

    def annotate(self, phase: str) -> None:
        """Mark on the timeline that a phase begins."""
        if self._profiler:
            self._close_phase()
            self._phase = torch.profiler.record_function(phase)
            self._phase.__enter__()

    def end_stage(self) -> None:
        """Write what was recorded, if anything is being recorded."""
        if not self._profiler:
            return
        self._close_phase()
        profiler, self._profiler = self._profiler, None
        with _without_kineto_log():
            profiler.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / f"{self._file}.new"
        profiler.export_chrome_trace(str(unfinished))
        unfinished.replace(self.folder / self._file)

    def _close_phase(self) -> None:
        phase, self._phase = self._phase, None
        if phase:
            phase.__exit__(None, None, None)


@contextmanager
def _without_kineto_log() -> Iterator[None]:
    """Drop the lines that the profiler's library writes to stderr whenever it starts and stops, at any log level."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            file.seek(0)
            os.write(2, _KINETO.sub(b"", file.read()))
