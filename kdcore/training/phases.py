"""Timing of a run, divided into phases."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdcore.training.step_trace import StepTrace

START = "start and imports"
DATA = "preparing data"
CHECKS = "checks"
BATCHES = "batches"
TEACHERS = "teachers, frozen"
TEACHERS_FORWARD = "teachers, forward"
TEACHERS_BACKWARD = "teachers, backward"
FORWARD = "students, forward"
BACKWARD = "students, backward"
LOSSES = "losses"
OPTIMIZER = "optimizer"
EVALUATION = "evaluation"
CHECKPOINTS = "checkpoints and weights"
TRACKING = "tracking"
REPORT = "report"
TRACES = "writing traces"
OWN = "kdcore's own code"

ORDER = (
    START,
    DATA,
    CHECKS,
    BATCHES,
    TEACHERS,
    TEACHERS_FORWARD,
    TEACHERS_BACKWARD,
    FORWARD,
    BACKWARD,
    LOSSES,
    OPTIMIZER,
    EVALUATION,
    CHECKPOINTS,
    TRACKING,
    REPORT,
    TRACES,
    OWN,
)
"""All phases, in display order."""

STEP = (BATCHES, TEACHERS, TEACHERS_FORWARD, FORWARD, LOSSES, TEACHERS_BACKWARD, BACKWARD)
"""Phases of a training step from its batch to the gradients."""

SAMPLED = 16
"""One training step in `SAMPLED` is timed by phase; with a profile, every step is."""

_UNDIVIDED = "training"


class Phases:
    """A timer that assigns every moment of a run to one phase.

    Time outside all other phases is `OWN`. A sample of the training steps is timed phase by phase; the time of the other steps
    is divided in the same proportions. A stage's first step, in which libraries warm up, is timed but not used as a proportion.

    Args:
        profile: Time every training step by phase instead of one in `SAMPLED`.
        began: Reading of `time.perf_counter` at which `START` began; now by default.

    Attributes:
        seconds: Phase → seconds so far.
        synchronise: Waits for the device to finish its queued work; None on a CPU.
        trace: Records a Chrome trace of some steps of each stage; None to record nothing.
    """

    def __init__(self, profile: bool = False, began: float | None = None):
        self.seconds: dict[str, float] = {}
        self.profile, self.every = profile, 1 if profile else SAMPLED
        self.synchronise: Callable[[], None] | None = None
        self.trace: StepTrace | None = None
        self.mark: Callable[[str], object] = _nothing  # within a training step: `enter`, or nothing if it is not divided
        self._phase, self._since = START, time.perf_counter() if began is None else began
        self._into = self.seconds
        self._count, self._shares = 0, dict[str, float]()
        self._first: dict[str, float] = {}
        self._fresh: dict[str, float] = {}
        self._typical: dict[str, float] = {}
        self._sampled = 0

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add the seconds of an earlier process of the same run."""
        _add(self.seconds, seconds)

    def enter(self, phase: str) -> str:
        """Begin a phase; returns the previous one."""
        if self.synchronise and self._into is not self.seconds:
            self.synchronise()
        now = time.perf_counter()
        self._into[self._phase] = self._into.get(self._phase, 0.0) + now - self._since
        before, self._phase, self._since = self._phase, phase, now
        if self.trace:
            self.trace.annotate(phase)
        return before

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Context that is timed as `phase`; the previous phase continues afterwards."""
        before, into = self.enter(phase), self._into
        self._into = self.seconds
        try:
            yield
        finally:
            self.enter(before)
            self._into = into

    def begin_stage(self, name: str, steps: int) -> None:
        """Begin a stage of `steps` training steps."""
        self._count, self._first, self._fresh, self._typical, self._shares = 0, {}, {}, {}, {}
        self._sampled = 0
        if self.trace:
            self.trace.begin_stage(name, steps)

    def begin_step(self) -> None:
        """Begin a training step, in phase `OWN`."""
        count = self._count
        self._count = count + 1
        if self.trace:
            with self.during(TRACES):
                self.trace.begin_step(count)
        if count == 0 or count % self.every == 1 % self.every:
            self.enter(OWN)
            self._into, self.mark = self._fresh if count else self._first, self.enter
            self._sampled += count > 0
        elif self._into is not self.seconds or self._phase != _UNDIVIDED:
            self.enter(_UNDIVIDED)
            self._into, self.mark = self.seconds, _nothing

    def end_steps(self) -> None:
        """End the steps of an epoch, and divide the time of the steps that were not timed by phase."""
        self.enter(OWN)
        self._into, self.mark = self.seconds, _nothing
        first, fresh = self._first, self._fresh
        self._first, self._fresh = {}, {}
        for exact in (first, fresh):
            _add(self.seconds, exact)
        _add(self._typical, fresh)
        self._shares = self._typical or first or self._shares
        undivided, whole = self.seconds.pop(_UNDIVIDED, 0.0), sum(self._shares.values())
        shares = {phase: spent / whole for phase, spent in self._shares.items()} if whole else {OWN: 1.0}
        _add(self.seconds, {phase: undivided * share for phase, share in shares.items()})

    def typical_step(self) -> tuple[int, float]:
        """Number of this stage's steps that were timed by phase, without the first, and their mean seconds in `STEP`."""
        spent = sum(self._typical.get(phase, 0.0) for phase in STEP)
        return self._sampled, spent / max(1, self._sampled)

    def end_stage(self) -> None:
        """End a stage of training."""
        if self.trace:
            with self.during(TRACES):
                self.trace.end_stage()

    def listed(self) -> dict[str, float]:
        """Phase → seconds so far, in display order."""
        self.enter(self._phase)
        if self._into is not self.seconds or _UNDIVIDED in self.seconds:
            self.end_steps()
        return in_order(self.seconds)


def in_order(seconds: Mapping[str, float]) -> dict[str, float]:
    """Sort phases into display order; unknown ones, of plugins and later versions, follow."""
    known = {phase: seconds[phase] for phase in ORDER if seconds.get(phase)}
    return known | {phase: spent for phase, spent in seconds.items() if spent and phase not in known}


def _add(to: dict[str, float], seconds: Mapping[str, float]) -> None:
    for phase, spent in seconds.items():
        to[phase] = to.get(phase, 0.0) + spent


def _nothing(phase: str) -> None:
    """Ignore the phases of a step that is not sampled."""
