"""Progress of training from Python: an updated line in a notebook, a line per stage elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from kdcore.errors import UsageError
from kdcore.recipe.graph import StagePlan
from kdcore.runs.callbacks import RunListener
from kdcore.training.callback import reason_to_stop

INTERVAL = 0.2
"""Seconds between two updates of a notebook's line."""

EVENTS = tuple(name for name in dir(RunListener) if not name.startswith("_"))


class ProgressDisplay(RunListener):
    """Shows the current stage, its progress, and the durations of finished stages.

    It writes HTML to a notebook's output through IPython, and plain text elsewhere; no control codes of terminals, and no
    widgets.
    """

    def __init__(self) -> None:
        self._title, self._began, self._steps, self._note, self._shown = "", 0.0, 1, "", 0.0
        self._epochs = 0
        self._handle: Any = None

    def reading(self, done: int, total: int, what: str) -> None:
        """Show how many samples are read."""
        if done < total:
            self._bar(f"reading {what}", done / total if total else 1.0)

    def arm_started(self, seed: int, arm: str, stages: Sequence[StagePlan]) -> None:
        """Note the seed and arm for the lines of its stages."""
        self._title = f"seed {seed}, {arm}: "

    def stage_started(self, stage: StagePlan, steps: int) -> None:
        """Start a stage's line."""
        self._began, self._steps, self._note, self._epochs = time.monotonic(), steps, "", stage.epochs

    def stepped(self, stage: StagePlan, epoch: int, step: int) -> None:
        """Update the bar."""
        self._bar(f"{self._title}{stage.name}", (epoch * self._steps + step) / (stage.epochs * self._steps))

    def epoch_finished(self, stage: StagePlan, epoch: int, metrics: Mapping[str, float]) -> None:
        """Update the bar and the numbers beside it."""
        self._epochs = epoch + 1
        self._note = epoch_numbers(metrics)
        self._bar(f"{self._title}{stage.name}", (epoch + 1) / stage.epochs)

    def stage_finished(self, stage: StagePlan) -> None:
        """Write a line about the stage."""
        seconds = time.monotonic() - self._began
        self.say(f"{self._title}{stage.name}, {self._epochs} epochs in {seconds:.1f} s  {self._note}".rstrip())

    def stage_reused(self, stage: StagePlan) -> None:
        """Write a line about a stage that is taken from an earlier run."""
        self.say(f"{self._title}{stage.name}, reused from an earlier run")

    def say(self, text: str) -> None:
        """Write a line; the line of the bar, in a notebook, becomes it."""
        if not in_notebook():
            print(text, file=sys.stderr)
        elif self._handle is None:
            self._display(escape(text))
        else:
            self._update(escape(text))
            self._handle = None

    def _bar(self, text: str, share: float) -> None:
        """Draw the bar in a notebook; elsewhere lines at the end of stages will do."""
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


class Callbacks(RunListener):
    """Passes everything on to several callbacks, in order.

    Args:
        callbacks: `kdcore.RunListener` objects.

    Raises:
        UsageError: If one is something else.
    """

    def __init__(self, callbacks: Sequence[RunListener]):
        for each in callbacks:
            if isinstance(each, type) or not all(callable(getattr(each, name, None)) for name in EVENTS):
                what = each.__name__ if isinstance(each, type) else type(each).__name__
                raise UsageError(f"a callback is an object of a class that derives from kdcore.RunListener, not {what}")
        for name in EVENTS:
            setattr(self, name, _to_all([getattr(each, name) for each in callbacks]))


def _to_all(methods: Sequence[Any]) -> Any:
    def call(*args: Any, **kwargs: Any) -> str | None:
        return reason_to_stop([method(*args, **kwargs) for method in methods])

    return call


def listener_for(callbacks: Sequence[RunListener], progress: bool | None) -> RunListener:
    """One listener for a caller's callbacks and, if wanted, the progress.

    Args:
        callbacks: The caller's.
        progress: Whether to show it; None for only in a notebook.
    """
    shown = in_notebook() if progress is None else progress
    return Callbacks([*([ProgressDisplay()] if shown else []), *callbacks])


def epoch_numbers(metrics: Mapping[str, float]) -> str:
    """The metrics of an epoch that people follow: those of the validation split, or else the losses."""
    chosen = {name: value for name, value in metrics.items() if name.startswith("validation/")}
    chosen = chosen or {name: value for name, value in metrics.items() if name.endswith("/total")}
    return "  ".join(f"{name.partition('/')[2]} {value:.3f}" for name, value in chosen.items())


def in_notebook() -> bool:
    """Return whether output goes to a notebook's cell."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and hasattr(shell, "kernel")
