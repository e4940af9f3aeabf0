"""Measurement of the duration of a training step of a student."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kdcore import RunListener, StagePlan


@dataclass(frozen=True)
class StageTime:
    """Duration of a stage in which a student was trained.

    Args:
        arm: ``distilled`` or ``baseline``.
        seed: The seed.
        steps: Number of training steps measured.
        seconds: Wall time in seconds.
        cpu_seconds: CPU time of all threads of the process in seconds.
    """

    arm: str
    seed: int
    steps: int
    seconds: float
    cpu_seconds: float


class StepClock(RunListener):
    """Writes the durations of stages in which a student is trained to files, and forwards all events.

    The measurement ends with the last epoch. It includes validation and checkpoints, but not the outputs of frozen teachers
    that are computed before the first step. Epochs before an interruption are not measured.

    Args:
        folder: Folder of the files.
        student: Name of the student.
        label: Name of the variant, used in the file name.
        to: Receives every event.
    """

    def __init__(self, folder: Path, student: str, label: str, to: RunListener):
        self.folder, self.student, self.label, self._to = folder, student, label, to
        self.reading, self.stepped, self.say, self.stage_reused = to.reading, to.stepped, to.say, to.stage_reused  # type: ignore[method-assign]
        self._seed, self._arm = 0, ""
        self._began = self._ended = (0.0, 0.0)
        self._steps = self._epochs = 0

    def arm_started(self, seed: int, arm: str, stages: Sequence[StagePlan]) -> None:
        """Store the seed and arm."""
        self._seed, self._arm = seed, arm
        self._to.arm_started(seed, arm, stages)

    def stage_started(self, stage: StagePlan, steps: int) -> None:
        """Start the clock."""
        self._to.stage_started(stage, steps)
        self._steps, self._epochs = steps, 0
        self._began = _now()

    def epoch_finished(self, stage: StagePlan, epoch: int, metrics: Mapping[str, float]) -> str | None:
        """Count the epoch."""
        self._epochs, self._ended = self._epochs + 1, _now()
        return self._to.epoch_finished(stage, epoch, metrics)

    def stage_finished(self, stage: StagePlan) -> None:
        """Write the measurement if the student was a learner."""
        if self.student in stage.learners and self._epochs:
            wall, cpu = (end - start for end, start in zip(self._ended, self._began, strict=True))
            found = StageTime(self._arm, self._seed, self._steps * self._epochs, wall, cpu)
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"{_slug(self.label)}-seed-{self._seed}-{self._arm}.json"
            path.write_text(json.dumps(asdict(found)), encoding="utf-8")
        self._to.stage_finished(stage)


def stage_times(folder: Path, label: str, seeds: Sequence[int], arm: str = "distilled") -> Iterator[StageTime]:
    """Return measured times of a variant.

    Args:
        folder: Folder of the files.
        label: Name of the variant.
        seeds: Seeds to return; those without a measurement are omitted.
        arm: ``distilled`` or ``baseline``.
    """
    for seed in seeds:
        path = folder / f"{_slug(label)}-seed-{seed}-{arm}.json"
        if path.exists():
            yield StageTime(**json.loads(path.read_text(encoding="utf-8")))


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _slug(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", label)
