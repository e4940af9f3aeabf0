"""Callbacks of a run, and the adapter that calls the plugins' hooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kdcore.plugin.manager import PluginManager
from kdcore.recipe.graph import StagePlan
from kdcore.training.callback import Listener, reason_to_stop


class RunListener(Listener):
    """Base class of a run's callbacks; every method does nothing."""

    def reading(self, done: int, total: int, what: str) -> None:
        """Called while samples are read; `what` names the modalities."""

    def arm_started(self, seed: int, arm: str, stages: Sequence[StagePlan]) -> None:
        """Called when training of an arm begins: ``distilled``, ``baseline``, or empty if the recipe does not distil."""

    def say(self, text: str) -> None:
        """Show a line of text to the user."""


class HookCaller(RunListener):
    """Forwards all callbacks to the user's listener, and those of stages and epochs to the plugins' hooks."""

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
