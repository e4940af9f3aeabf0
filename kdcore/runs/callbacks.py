"""Callbacks of a run, their combination, and the callback that calls the plugins' hooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdcore.errors import UsageError, type_name
from kdcore.plugin.manager import PluginManager
from kdcore.recipe.graph import StagePlan
from kdcore.training.callback import Listener, reason_to_stop


class RunListener(Listener):
    """Base class of a run's callbacks; every method does nothing."""

    def reading(self, done: int, total: int, what: str) -> None:
        """Called while samples are read; `what` names the modalities."""

    def arm_started(self, seed: int, arm: str, stages: Sequence[StagePlan]) -> None:
        """Called when training of an arm begins: ``distilled``, ``baseline``, or empty if the recipe does not distil."""


class PluginHooks(RunListener):
    """Calls the plugins' hooks for stages and epochs."""

    def __init__(self, plugins: PluginManager):
        self._hook, self._seed = plugins.hook, 0

    def arm_started(self, seed: int, arm: str, stages: Sequence[StagePlan]) -> None:
        """Store the seed for the hooks."""
        self._seed = seed

    def stage_started(self, stage: StagePlan, steps: int) -> None:
        """Call the hook ``stage_started``."""
        self._hook.stage_started(stage=stage, seed=self._seed)

    def epoch_finished(self, stage: StagePlan, epoch: int, metrics: Mapping[str, float]) -> str | None:
        """Call the hook ``epoch_finished``, and combine the reasons to end the stage."""
        return reason_to_stop(self._hook.epoch_finished(stage=stage, seed=self._seed, epoch=epoch, metrics=metrics))

    def stage_finished(self, stage: StagePlan) -> None:
        """Call the hook ``stage_finished``."""
        self._hook.stage_finished(stage=stage, seed=self._seed)


EVENTS = tuple(name for name in dir(RunListener) if not name.startswith("_"))


class Callbacks(RunListener):
    """Forwards events to several callbacks, in order.

    Args:
        callbacks: `kdcore.RunListener` objects.

    Raises:
        UsageError: If a callback has another type.
    """

    def __init__(self, callbacks: Sequence[RunListener]):
        for each in callbacks:
            if isinstance(each, type) or not all(callable(getattr(each, name, None)) for name in EVENTS):
                raise UsageError(f"a callback must be an instance of a subclass of kdcore.RunListener, not {type_name(each)}")
        for name in EVENTS:
            setattr(self, name, _to_all([getattr(each, name) for each in callbacks]))


def _to_all(methods: Sequence[Any]) -> Any:
    def call(*args: Any, **kwargs: Any) -> str | None:
        return reason_to_stop([method(*args, **kwargs) for method in methods])

    return call
