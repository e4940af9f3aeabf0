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
"""Number of warm-up steps before the trace, and number of traced steps, per stage."""

_KINETO = re.compile(rb"^\w+:\d{4}-\d\d-\d\d .*\.cpp:\d+\].*\n", re.MULTILINE)


class StepTrace:
    """Records some steps of each stage with `torch.profiler`, as Chrome traces for ``chrome://tracing`` or Perfetto.

    The traces show operators together with the phases of `Phases`. Training itself is not affected.

    Args:
        folder: Folder of the files ``PREFIX-STAGE.json``.
        prefix: Prefix of the file names.
        steps: Steps to record per stage.
    """

    def __init__(self, folder: Path, prefix: str, steps: int = TRACED):
        self.folder, self.prefix, self.steps = folder, prefix, steps
        self._file, self._start = "", 0
        self._profiler: Any = None
        self._phase: Any = None

    def begin_stage(self, name: str, steps: int) -> None:
        """Begin a stage of `steps` steps."""
        self._file = f"{self.prefix}-{name.replace('/', '-')}.json"
        self._start = max(0, min(SKIPPED, steps - self.steps))

    def begin_step(self, step: int) -> None:
        """Begin step `step` of the stage, counted from 0 at the stage's first step in this process."""
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
        """Mark the beginning of a phase in the trace."""
        if self._profiler:
            self._close_phase()
            self._phase = torch.profiler.record_function(phase)
            self._phase.__enter__()

    def end_stage(self) -> None:
        """Write the trace, if one is being recorded."""
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
    """Drop the log lines that the Kineto library writes to stderr, at any log level, when a profiler starts and stops."""
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
