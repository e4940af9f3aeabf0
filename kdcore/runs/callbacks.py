"""Callbacks that show a run's progress to a person, and to plugins through their hooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kdcore.plugin.manager import PluginManager
from kdcore.recipe.graph import StagePlan
from kdcore.training.callback import Listener, reason_to_stop


class RunListener(Listener):
    """Receives the events of a run: those of its stages, and those below."""

    def reading(self, done: int, total: int, what: str) -> None:
        """Samples are being read; `what` names the modalities."""

    def arm_started(self, seed: int, arm: str, stages: Sequence[StagePlan]) -> None:
        """Training of a seed's arm begins, ``distilled`` or ``baseline``; empty if the recipe does not distil."""

    def say(self, text: str) -> None:
        """Show a line to the user."""


class HookCaller(RunListener):
    """Passes all events on to the user's listener, and events of stages to the plugins' hooks."""

    def __init__(self, to: RunListener, plugins: PluginManager):
        self._to, self._hook, self._seed = to, plugins.hook, 0
        self.reading, self.stepped, self.say = to.reading, to.stepped, to.say  # type: ignore[method-assign]

    def arm_started(self, seed: int, arm: str, stages: Sequence[StagePlan]) -> None:
        self._seed = seed
        self._to.arm_started(seed, arm, stages)

    def stage_started(self, stage: StagePlan, steps: int) -> None:
        self._hook.stage_started(stage=stage, seed=self._seed)
        self._to.stage_started(stage, steps)

    def epoch_finished(self, stage: StagePlan, epoch: int, metrics: Mapping[str, float]) -> str | None:
        asked = self._hook.epoch_finished(stage=stage, seed=self._seed, epoch=epoch, metrics=metrics)
        asked += [self._to.epoch_finished(stage, epoch, metrics)]
        return reason_to_stop(asked)

    def stage_finished(self, stage: StagePlan) -> None:
        self._hook.stage_finished(stage=stage, seed=self._seed)
        self._to.stage_finished(stage)

    def stage_reused(self, stage: StagePlan) -> None:
        self._to.stage_reused(stage)
