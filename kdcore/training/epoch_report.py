"""Metrics, notes and callbacks of an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from kdcore.training.callback import Listener
from kdcore.training.divergence import Skipping
from kdcore.training.epoch_means import term_means
from kdcore.training.gradient_watch import GradientWatch
from kdcore.training.learner import Learner
from kdcore.training.participants import Distiller
from kdcore.training.stage_context import StageContext
from kdcore.training.trained_teachers import History
from kdcore.training.validation import Scores, reads_loss

INTERVAL = 0.2
"""Seconds between two reports of the steps of an epoch."""


class EpochReport:
    """Tracks the metrics of epochs and collects notes on the training.

    Args:
        distiller: All participants of the arm, with their losses.
        record: Called with (metrics, step) to track metrics.
        listener: Training callbacks.
        watch: Finds terms with a vanished gradient.
        skipping: Skips steps that are not finite; None if such steps are errors.
        log_every: Number of batches averaged into one logged value.
    """

    def __init__(
        self,
        distiller: Distiller,
        record: Callable[[Mapping[str, float], int], None],
        listener: Listener,
        watch: GradientWatch,
        skipping: Skipping | None,
        log_every: int,
    ):
        self.distiller, self.record, self.listener, self.watch = distiller, record, listener, watch
        self.skipping, self.log_every = skipping, log_every
        self.notes: list[str] = []
        self.history: list[list[float]] = []
        self._tracked: History | None = None
        self._earlier_notes, self._last_call = 0, 0.0

    def begin_stage(self, history: Sequence[Sequence[float]], keep: bool) -> None:
        """Begin a stage.

        Args:
            history: Epoch → mean of each term, of the epochs before an interruption.
            keep: Keep the metrics and notes for `stage_record`.
        """
        self.history = [list(means) for means in history]
        self._tracked, self._earlier_notes = [] if keep else None, len(self.notes)

    def stage_record(self) -> tuple[History, list[str]]:
        """The tracked metrics and the notes of the current stage."""
        return self._tracked or [], self.notes[self._earlier_notes :]

    def stepped(self, context: StageContext, done: int, now: float) -> None:
        """Call the listener after `done` steps of an epoch, at most once per `INTERVAL`."""
        if now - self._last_call > INTERVAL:
            self._last_call = now
            self.listener.stepped(context.stage, context.epoch, done)

    def values(self, context: StageContext) -> tuple[list[tuple[str, Learner, float]], dict[str, float]]:
        """Track the losses of an epoch's batches.

        Returns:
            (metric, learner, value) for the means over the epoch and the learning rates; and ``learner/term`` → mean. The
            learner's epoch count is the step at which the metric is recorded.
        """
        values, names = context.values.cpu(), context.names
        finite = self._finite(context, values)
        learner_of = context.by_name
        owners = [*(learner_of[term.learner] for term in context.step.terms), context.first]
        accumulate, steps = context.stage.accumulate, context.optimizer_steps
        every = max(self.log_every, accumulate)
        for piece, chunk in enumerate(values.split(every)):
            chunk = chunk[finite[piece * every : (piece + 1) * every]]
            by_step = (name.replace("train/", "train_step/", 1) for name in names)
            means = _known(zip(by_step, owners, term_means(chunk), strict=True))
            began = piece * every // accumulate
            self.track(means if len(chunk) else (), lambda learner, began=began: learner.steps - steps + began)
        means = term_means(values[finite])
        self.history.append(means[:-1])
        metrics = _known(zip(names, owners, means, strict=True))
        for name, mean in context.step.logged.means().items():
            metrics.append((f"train/{name}", learner_of[name.split("/")[0]], mean))
        metrics += [(f"learning_rate/{name}", learner, learner.rate) for name, learner in learner_of.items()]
        return metrics, {name: mean for name, mean in zip(context.step.names, means, strict=False) if not math.isnan(mean)}

    def scores(self, context: StageContext, scores: Mapping[str, Scores]) -> list[tuple[str, Learner, float]]:
        """(metric, learner, value) for the validation split."""
        learner_of, with_loss = context.by_name, [name for name in scores if reads_loss(context.training(name))]
        metrics = [(f"validation/{name}/{each.name}", learner_of[name], each.value) for name, each in scores.items()]
        return metrics + [(f"validation/{name}/loss", learner_of[name], scores[name].loss) for name in with_loss]

    def vanished(self, context: StageContext) -> list[tuple[str, Learner, float]]:
        """Report terms whose gradient vanished in this epoch; returns (metric, learner, share of the largest gradient)."""
        shares = []
        for name, (gradient, largest, rival) in self.watch.vanished().items():
            learner, term = name.split("/", 1)
            against = f" against {largest:.2g} of {rival.split('/', 1)[1]!r}" if rival != name else ""
            what, hint = (
                "no longer matters",
                "Look for detach, saturation or a margin that every sample meets; if that is intended, ",
            )
            if name not in self.watch.effective:
                what, hint = "has had no effect", "If it starts later, for example with a memory that fills first, "
            self.listener.say(
                f"{self.distiller.describe_term(learner, term)} {what} in stage {context.stage.name}, epoch "
                f"{context.epoch + 1}: its gradient on the outputs of {learner} is {gradient:.2g} with its weight{against}. "
                f"{hint}ignore this line"
            )
            shares.append((f"train/{name}/vanished", context.by_name[learner], gradient / largest if largest else 0.0))
        return shares

    def _finite(self, context: StageContext, values: Tensor) -> Tensor:
        """(steps,) bool mask of the batches that were not skipped; reports the number of skipped ones."""
        finite = torch.isfinite(values).all(dim=1)
        if not self.skipping or bool(finite.all()) or not bool(finite.any()):
            context.refuse_infinite(values)
            return finite
        count = int((~finite).sum())
        self.note(
            f"{count} of {len(values)} steps were skipped in stage {context.stage.name}, epoch {context.epoch + 1}: "
            "their loss or gradients were not finite numbers"
        )
        return finite

    def note(self, *notes: str) -> None:
        """Show notes to the user, and keep them for the results."""
        self.notes += notes
        for note in notes:
            self.listener.say(note)

    def track(self, values: Iterable[tuple[str, Learner, float]], at: Callable[[Learner], int]) -> None:
        """Record values at each learner's own step `at`: learners of one stage may have trained for different times."""
        metrics_at: dict[int, dict[str, float]] = {}
        for name, learner, value in values:
            metrics_at.setdefault(at(learner), {})[name] = value
        for step, metrics in metrics_at.items():
            self.record(metrics, step)
            if self._tracked is not None:
                self._tracked.append((metrics, step))


def _known(metrics: Iterable[tuple[str, Learner, float]]) -> list[tuple[str, Learner, float]]:
    """Leave out the means of terms that had no samples."""
    return [each for each in metrics if not math.isnan(each[2])]
