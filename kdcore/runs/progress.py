"""Progress of runs started from Python: a progress bar in notebooks, or one line per stage."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from kdcore.recipe.graph import StagePlan
from kdcore.runs.callbacks import Callbacks, RunListener

INTERVAL = 0.2
"""Minimum time between updates of the bar in a notebook, in seconds."""


class ProgressDisplay(RunListener):
    """Shows the current stage, its progress, and the durations of finished stages.

    Writes HTML through IPython in a notebook, and plain text elsewhere, without terminal control codes or widgets.
    """

    def __init__(self) -> None:
        self._title, self._began, self._steps, self._note, self._shown = "", 0.0, 1, "", 0.0
        self._epochs = 0
        self._handle: Any = None

    def reading(self, done: int, total: int, what: str) -> None:
        """Show how many samples have been read."""
        if done < total:
            self._bar(f"reading {what}", done / total if total else 1.0)

    def arm_started(self, seed: int, arm: str, stages: Sequence[StagePlan]) -> None:
        """Store the seed and arm for the lines of the stages."""
        self._title = f"seed {seed}, {arm}: "

    def stage_started(self, stage: StagePlan, steps: int) -> None:
        """Reset the bar for a stage."""
        self._began, self._steps, self._note, self._epochs = time.monotonic(), steps, "", stage.epochs

    def stepped(self, stage: StagePlan, epoch: int, step: int) -> None:
        """Update the bar."""
        self._bar(f"{self._title}{stage.name}", (epoch * self._steps + step) / (stage.epochs * self._steps))

    def epoch_finished(self, stage: StagePlan, epoch: int, metrics: Mapping[str, float]) -> None:
        """Update the bar and the metrics next to it."""
        self._epochs = epoch + 1
        self._note = epoch_numbers(metrics)
        self._bar(f"{self._title}{stage.name}", (epoch + 1) / stage.epochs)

    def stage_finished(self, stage: StagePlan) -> None:
        """Print a line about the stage."""
        seconds = time.monotonic() - self._began
        self.say(f"{self._title}{stage.name}, {self._epochs} epochs in {seconds:.1f} s  {self._note}".rstrip())

    def stage_reused(self, stage: StagePlan) -> None:
        """Print a line about a stage that is reused from an earlier run."""
        self.say(f"{self._title}{stage.name}, reused from an earlier run")

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
        html = f'<progress value="{share:.3f}" max="1"></progress> {escape(text)} {escape(self._note)}'
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
    shown = in_notebook() if progress is None else progress
    return Callbacks([*([ProgressDisplay()] if shown else []), *callbacks])


def epoch_numbers(metrics: Mapping[str, float]) -> str:
    """Format the metrics of an epoch: those of the validation split, or else the total losses."""
    shown = {name: value for name, value in metrics.items() if name.startswith("validation/")}
    shown = shown or {name: value for name, value in metrics.items() if name.endswith("/total")}
    return "  ".join(f"{name.partition('/')[2]} {value:.3f}" for name, value in shown.items())


def in_notebook() -> bool:
    """Return whether the code runs in a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and hasattr(shell, "kernel")
