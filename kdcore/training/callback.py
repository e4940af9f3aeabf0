"""Callbacks: methods that are called while training goes on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kdcore.errors import TrainingError
from kdcore.recipe.graph import StagePlan


class Listener:
    """Told how training goes; does nothing by itself."""

    def stage_started(self, stage: StagePlan, steps: int) -> None:
        """`stage` begins; an epoch has `steps` steps."""

    def stepped(self, stage: StagePlan, epoch: int, step: int) -> None:
        """Some steps of an epoch have been done; called a few times a second."""

    def epoch_finished(self, stage: StagePlan, epoch: int, metrics: Mapping[str, float]) -> str | None:
        """An epoch has ended. Return the reason to end the stage here; None to go on."""

    def stage_finished(self, stage: StagePlan) -> None:
        """`stage` has ended."""

    def stage_reused(self, stage: StagePlan) -> None:
        """`stage` has been trained before and is taken from there."""

    def say(self, text: str) -> None:
        """A line for the user."""


def reason_to_stop(answers: Iterable[Any]) -> str | None:
    """Combine the reasons that several `epoch_finished` returned.

    Raises:
        TrainingError: If one returned anything but a text or None.
    """
    reasons = [each for each in answers if each is not None]
    for each in reasons:
        if not isinstance(each, str) or not each:
            raise TrainingError(
                f"epoch_finished returned {each!r}; return the reason to end the stage as text, or None to go on"
            )
    return "; ".join(reasons) or None
