"""Callbacks: methods that are called while training goes on."""

from __future__ import annotations

from collections.abc import Mapping

from kdcore.recipe.graph import StagePlan


class Listener:
    """Told how training goes; does nothing by itself."""

    def stage_started(self, stage: StagePlan, steps: int) -> None:
        """`stage` begins; an epoch has `steps` steps."""

    def stepped(self, stage: StagePlan, epoch: int, step: int) -> None:
        """Some steps of an epoch have been done; called a few times a second."""

    def epoch_finished(self, stage: StagePlan, epoch: int, metrics: Mapping[str, float]) -> None:
        """An epoch has ended."""

    def stage_finished(self, stage: StagePlan) -> None:
        """`stage` has ended."""

    def stage_reused(self, stage: StagePlan) -> None:
        """`stage` has been trained before and is taken from there."""

    def say(self, text: str) -> None:
        """A line for the user."""
