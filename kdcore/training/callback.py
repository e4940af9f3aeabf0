"""Callbacks of the training loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kdcore.errors import TrainingError
from kdcore.recipe.graph import StagePlan


class Listener:
    """Base class of training callbacks; every method does nothing."""

    def stage_started(self, stage: StagePlan, steps: int) -> None:
        """Called when `stage` begins; its epochs have `steps` steps."""

    def stepped(self, stage: StagePlan, epoch: int, step: int) -> None:
        """Called a few times per second within an epoch, after `step` of its steps."""

    def epoch_finished(self, stage: StagePlan, epoch: int, metrics: Mapping[str, float]) -> str | None:
        """Called after an epoch. Return a reason to end the stage here, or None to continue."""

    def stage_finished(self, stage: StagePlan) -> None:
        """Called when `stage` has ended."""

    def stage_reused(self, stage: StagePlan) -> None:
        """Called when the result of `stage` was loaded from an earlier run."""

    def say(self, text: str) -> None:
        """Show a line of text to the user."""


def reason_to_stop(returned: Iterable[Any]) -> str | None:
    """Combine the return values of several `epoch_finished` callbacks.

    Raises:
        TrainingError: If one is neither a non-empty string nor None.
    """
    reasons = [each for each in returned if each is not None]
    for each in reasons:
        if not isinstance(each, str) or not each:
            raise TrainingError(
                f"epoch_finished returned {each!r}; return the reason to end the stage as text, or None to go on"
            )
    return "; ".join(reasons) or None
