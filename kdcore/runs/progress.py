"""Progress of runs started from Python: a progress bar in notebooks, or one line per stage."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from kdcore.errors import UsageError
from kdcore.recipe.graph import StagePlan
from kdcore.runs.callbacks import Callbacks, RunListener

INTERVAL = 0.2
"""Minimum time between updates of the bar in a notebook, in seconds."""


class StageProgress(RunListener):
    """Base class of displays. Keeps track of the current stage, and describes stages that end.

    Attributes:
        title: Seed and arm.
        steps: Steps of an epoch of the current stage.
        note: Metrics of the last epoch, as text.
    """

    def __init__(self) -> None:
        self.title, self.note, self.steps = "", "", 1
        self._began, self._epochs = 0.0, 0

    def arm_started(self, seed: int, arm: str, stages: Sequence[StagePlan]) -> None:
        """Store the seed and arm."""
        self.title = f"seed {seed}, {arm}" if arm else f"seed {seed}"

    def stage_started(self, stage: StagePlan, steps: int) -> None:
        """Reset the progress for a stage."""
        self._began, self.steps, self.note, self._epochs = time.monotonic(), steps, "", stage.epochs

    def epoch_finished(self, stage: StagePlan, epoch: int, metrics: Mapping[str, float]) -> None:
        """Store the metrics of an epoch: those of the validation split, or else the total losses."""
        self._epochs = epoch + 1
        shown = {name: value for name, value in metrics.items() if name.startswith("validation/")}
        shown = shown or {name: value for name, value in metrics.items() if name.endswith("/total")}
        self.note = "  ".join(f"{name.partition('/')[2]} {value:.3f}" for name, value in shown.items())

    def name_of(self, stage: StagePlan) -> str:
        """The seed, the arm and the name of a stage."""
        return f"{self.title}: {stage.name}" if self.title else stage.name

    def finished_line(self, stage: StagePlan) -> str:
        """Describe a stage that was trained."""
        seconds, epochs = time.monotonic() - self._began, f"{self._epochs} epoch{'s' if self._epochs > 1 else ''}"
        return f"{self._with_learners(stage)}, {epochs} in {seconds:.1f} s  {self.note}".rstrip()

    def reused_line(self, stage: StagePlan) -> str:
        """Describe a stage that is reused."""
        return f"{self._with_learners(stage)}, reused from an earlier run"

    def _with_learners(self, stage: StagePlan) -> str:
        learners = ", ".join(stage.learners)
        return self.name_of(stage) + ("" if learners == stage.name else f" ({learners})")


class ProgressDisplay(StageProgress):
    """Shows the current stage, its progress, and the durations of finished stages.

    Writes HTML through IPython in a notebook, and plain text elsewhere, without terminal control codes or widgets.
    """

    def __init__(self) -> None:
        super().__init__()
        self._shown = 0.0
        self._handle: Any = None

    def reading(self, done: int, total: int, what: str) -> None:
        """Show how many samples have been read."""
        if done < total:
            self._bar(f"reading {what}", done / total if total else 1.0)

    def stepped(self, stage: StagePlan, epoch: int, step: int) -> None:
        """Update the bar."""
        self._bar(self.name_of(stage), (epoch * self.steps + step) / (stage.epochs * self.steps))

    def epoch_finished(self, stage: StagePlan, epoch: int, metrics: Mapping[str, float]) -> None:
        """Update the bar and the metrics next to it."""
        super().epoch_finished(stage, epoch, metrics)
        self._bar(self.name_of(stage), (epoch + 1) / stage.epochs)

    def stage_finished(self, stage: StagePlan) -> None:
        """Print a line about the stage."""
        self.say(self.finished_line(stage))

    def stage_reused(self, stage: StagePlan) -> None:
        """Print a line about a stage that is reused from an earlier run."""
        self.say(self.reused_line(stage))

    def say(self, text: str) -> None:
        """Print a line. In a notebook, it replaces the bar."""
        if not in_notebook():
            print(text, file=sys.stderr)
        elif self._handle is None:
            self._display(escape(text))
        else:
            self._update(escape(text))
            self._handle = None

    def _bar(self, text: str, share: float) -> None:
        """Draw the bar in a notebook; do nothing elsewhere."""
        now = time.monotonic()
        if not in_notebook() or now - self._shown < INTERVAL:
            return
        self._shown = now
        html = f'<progress value="{share:.3f}" max="1"></progress> {escape(text)} {escape(self.note)}'
        if self._handle is None:
            self._handle = self._display(html, updated=True)
        else:
            self._update(html)

    @staticmethod
    def _display(html: str, updated: bool = False) -> Any:
        from IPython.display import HTML, display

        return display(HTML(html), display_id=True) if updated else display(HTML(html))

    def _update(self, html: str) -> None:
        from IPython.display import HTML

        self._handle.update(HTML(html))


def listener_for(callbacks: Sequence[RunListener], progress: bool | None) -> RunListener:
    """Combine callbacks and, optionally, a progress display.

    Args:
        callbacks: Callbacks of the caller.
        progress: Whether to show progress; None to show it in a notebook only.
    """
    if not isinstance(callbacks, Iterable):
        raise UsageError(f"callbacks must be a list, not {type(callbacks).__name__}")
    shown = in_notebook() if progress is None else progress
    return Callbacks([*([ProgressDisplay()] if shown else []), *callbacks])


def in_notebook() -> bool:
    """Return whether the code runs in a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and hasattr(shell, "kernel")
