"""Run one trial of a sweep and score it on the validation split."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from optuna.trial import Trial

from kdcore import FinishedRun, KdcoreError, Metric, RunListener, StagePlan, StoppedError, load_recipe, provenance_of
from kdcore_compare.ensure_runs import ensure_runs, interrupted_run
from kdcore_compare.search_space import SearchSpace, as_overrides
from kdcore_compare.trial_queue import TrialQueue


class PruningListener(RunListener):
    """Reports the student's metric on the validation split to Optuna after each epoch, and stops a trial that Optuna prunes.

    Only the first seed is reported.

    Args:
        trial: The trial; None for one that is not pruned.
        seed: The first seed.
        to: Receives every event.
        metric: Name of the metric.
    """

    def __init__(self, trial: Trial | None, seed: int, to: RunListener, metric: str):
        self.pruned, self._trial, self._first_seed, self._epochs, self._seed, self._to = False, trial, seed, 0, seed, to
        self.reading, self.stage_started, self.stage_finished = to.reading, to.stage_started, to.stage_finished  # type: ignore[method-assign]
        self.stepped, self.say = to.stepped, to.say  # type: ignore[method-assign]
        self._students: set[str] = set()
        self._metric = metric

    def arm_started(self, seed: int, arm: str, stages: Sequence[StagePlan]) -> None:
        """Store the seed and the students, which are the learners of the last stage."""
        self._seed, self._students = seed, set(stages[-1].learners)
        self._to.arm_started(seed, arm, stages)

    def epoch_finished(self, stage: StagePlan, epoch: int, metrics: Mapping[str, float]) -> str | None:
        """Report the students' metric on the validation split, averaged if there are several."""
        reason = self._to.epoch_finished(stage, epoch, metrics)
        names = [f"validation/{each}/{self._metric}" for each in stage.learners]
        found = [metrics[name] for name in names if name in metrics]
        if self._trial is None or self._seed != self._first_seed or not found or set(stage.learners) != self._students:
            return reason
        self._epochs += 1
        if np.isnan(found).any():
            return reason
        self._trial.report(float(np.mean(found)), self._epochs)
        if self._trial.should_prune():
            self.pruned = True
            raise StoppedError("pruned")
        return reason


def run_trial(
    space: SearchSpace,
    trial: Trial,
    queue: TrialQueue,
    tags: Mapping[str, str],
    listener: RunListener,
    prune: bool,
    say: Callable[[str], None],
) -> None:
    """Run a trial and store its result in the queue.

    Args:
        space: The search space.
        trial: The trial, claimed by this worker.
        queue: Stores the result.
        tags: Tags of the trial's MLflow run.
        listener: Receives the progress of training.
        prune: True if the trial may be pruned; a resumed one never is.
        say: Called with each line for the user.

    Raises:
        StoppedError: On request; the trial is given back.
    """
    values, metric = {key.path: key.suggest(trial) for key in space.keys}, queue.metric
    number = trial.user_attrs["point"]
    overrides = [*space.overrides, *as_overrides(values)]
    say(f"point {number}: {' '.join(as_overrides(values))}")
    pruning: PruningListener | None = None
    try:
        recipe = load_recipe(space.source, overrides)
        all_tags = json.dumps({**recipe.tracking.tags, **tags, "point": str(number)})
        experiment = json.dumps(recipe.tracking.experiment)
        overrides += ["baseline=false", f"name={recipe.name}-point-{number}", f"tracking.experiment={experiment}"]
        overrides += [f"tracking.tags={all_tags}"]
        recipe = load_recipe(space.source, overrides)
        fresh = prune and interrupted_run(recipe, "validation", provenance_of(recipe), _silent) is None
        pruning = PruningListener(trial if fresh else None, recipe.seeds[0], listener, metric.name)
        with queue.heartbeat(trial):
            runs = ensure_runs(space.source, overrides, "validation", pruning, say)
            scores = validation_scores(runs, recipe.seeds, metric)
    except StoppedError:
        if pruning is None or not pruning.pruned:
            queue.give_back(trial)
            raise
        queue.prune_trial(trial)
        say(f"point {number}: pruned")
    except KdcoreError as error:
        queue.fail(trial, str(error))
        say(f"point {number}: failed: {error}")
    else:
        trial.set_user_attr("scores", scores)
        mean = float(np.mean(scores))
        queue.complete(trial, mean)
        say(f"point {number}: validation {metric.title} {f'{metric.text(mean)} {metric.unit}'.strip()}")


def _silent(text: str) -> None:
    """Discard a line; `ensure_runs` prints it."""


def validation_scores(runs: Sequence[FinishedRun], seeds: Sequence[int], metric: Metric) -> list[float]:
    """Return the students' metric on the validation split for each seed, averaged over students.

    Raises:
        KdcoreError: If it is undefined, such as mAP without any positive labels.
    """
    found = {}
    for run in runs:
        for seed, outcome in run.outcomes["distilled"].items():
            evaluations = outcome.evaluations()
            found[seed] = float(np.mean([evaluations[name].metrics()[metric.name] for name in outcome.students]))
    if any(np.isnan(each) for each in found.values()):
        raise KdcoreError(f"{metric.title} is not defined on the validation split")
    return [found[seed] for seed in seeds]
