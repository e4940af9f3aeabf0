"""One point of a sweep, run and judged on the validation part."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from optuna.trial import Trial

from kdcore import FinishedRun, KdcoreError, RunListener, Stage, StoppedError, load_recipe
from kdcore_compare.queue import Queue
from kdcore_compare.settling import settle, unfinished
from kdcore_compare.space import Space, as_overrides


class Watch(RunListener):
    """Passes on how training goes, and stops a trial whose validation accuracy is behind the others'.

    The student of the first seed is watched, epoch by epoch.

    Args:
        trial: Is told, and asked whether to go on; None to stop nothing.
        seed: The first.
        to: Is told everything.
    """

    def __init__(self, trial: Trial | None, seed: int, to: RunListener):
        self.pruned, self._trial, self._seed, self._epochs, self._now, self._to = False, trial, seed, 0, seed, to
        self.reading, self.stage_started, self.stage_finished = to.reading, to.stage_started, to.stage_finished  # type: ignore[method-assign]
        self.stepped, self.say = to.stepped, to.say  # type: ignore[method-assign]
        self._students: set[str] = set()

    def arm_started(self, seed: int, arm: str, stages: Sequence[Stage]) -> None:
        """Note whose turn it is; those who learn last are the students."""
        self._now, self._students = seed, set(stages[-1].learners)
        self._to.arm_started(seed, arm, stages)

    def epoch_finished(self, stage: Stage, epoch: int, metrics: Mapping[str, float]) -> None:
        """Report the students' validation accuracy."""
        self._to.epoch_finished(stage, epoch, metrics)
        found = [metrics[name] for each in stage.learners if (name := f"validation/{each}/accuracy") in metrics]
        if self._trial is None or self._now != self._seed or not found or set(stage.learners) != self._students:
            return
        self._epochs += 1
        self._trial.report(float(np.mean(found)), self._epochs)
        if self._trial.should_prune():
            self.pruned = True
            raise StoppedError("behind the other trials")


def run_trial(
    space: Space,
    trial: Trial,
    queue: Queue,
    tags: Mapping[str, str],
    listener: RunListener,
    prune: bool,
    say: Callable[[str], None],
) -> None:
    """Run a trial and note what came of it.

    Args:
        space: What it is a point of.
        trial: This worker's.
        queue: Where results go.
        tags: Of its MLflow run.
        listener: Told how training goes.
        prune: Whether it may be stopped early; one that is gone on with never is.
        say: Is given each line meant for the user.

    Raises:
        StoppedError: If asked to stop; the trial is given back.
    """
    values = {key.path: key.suggest(trial) for key in space.keys}
    number = trial.user_attrs["point"]
    overrides = [*space.overrides, *as_overrides(values)]
    say(f"point {number}: {' '.join(as_overrides(values))}")
    watch: Watch | None = None
    try:
        recipe = load_recipe(space.source, overrides)
        told = json.dumps({**recipe.tracking.tags, **tags, "point": str(number)})
        experiment = json.dumps(recipe.tracking.experiment)
        overrides += ["baseline=false", f"name={recipe.name}-point-{number}", f"tracking.experiment={experiment}"]
        overrides += [f"tracking.tags={told}"]
        recipe = load_recipe(space.source, overrides)
        fresh = prune and unfinished(recipe, "validation") is None
        watch = Watch(trial if fresh else None, recipe.seeds[0], listener)
        with queue.working(trial):
            accuracies = validation_accuracies(settle(space.source, overrides, "validation", watch, say), recipe.seeds)
    except StoppedError:
        if watch is None or not watch.pruned:
            queue.give_back(trial)
            raise
        queue.pruned(trial)
        say(f"point {number}: stopped early")
    except KdcoreError as error:
        queue.failed(trial, str(error))
        say(f"point {number}: failed: {error}")
    else:
        trial.set_user_attr("accuracies", accuracies)
        queue.finish(trial, float(np.mean(accuracies)))
        say(f"point {number}: validation accuracy {100 * float(np.mean(accuracies)):.1f} %")


def validation_accuracies(runs: Sequence[FinishedRun], seeds: Sequence[int]) -> list[float]:
    """For each seed, the accuracy of the students on the validation part, their mean if there are several."""
    found = {}
    for run in runs:
        for seed, outcome in run.outcomes["distilled"].items():
            evaluations = outcome.evaluations()
            found[seed] = float(np.mean([evaluations[name].accuracy for name in outcome.students]))
    return [found[seed] for seed in seeds]
