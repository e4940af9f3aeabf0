"""Validation after each epoch: scores, best epoch, early stopping and learning rates that follow a metric."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import numpy as np
from torch.optim.lr_scheduler import ReduceLROnPlateau

from kdcore.contracts.target import OF_CLASSES, Target
from kdcore.contracts.training import Training
from kdcore.errors import TrainingError
from kdcore.training.learner import Learner
from kdcore.training.participants import FUSION
from kdcore.training.scores import mean_average_precision, mean_errors, mean_known, r_squared
from kdcore.training.stage_context import StageContext


@dataclass(frozen=True)
class Scores:
    """The scores of a learner on the validation split.

    Args:
        value: Primary metric of the target; accuracy and mAP in [0, 1].
        loss: Mean cross-entropy in nats; for labels, mean binary cross-entropy; for values, MSE of normalised values.
        name: Name of the primary metric: ``accuracy``, ``map``, ``mae`` or ``r2``.
        higher_is_better: Whether a larger `value` is better.
    """

    value: float
    loss: float
    name: str = "accuracy"
    higher_is_better: bool = True

    @classmethod
    def of(cls, predictions: np.ndarray, labels: np.ndarray, target: Target = OF_CLASSES) -> Scores:
        """Score predictions. Rows that are NaN, because the sample lacks the participant's signal, are ignored.

        Args:
            predictions: (n, classes) predictions, as returned by `kdcore.training.evaluation.predict`.
            labels: (n,) int64, or (n, names) for other targets than ``classes``.
            target: Kind of the labels.
        """
        metric = target.metric(target.primary)
        present = ~np.isnan(predictions).any(axis=1)
        predictions, labels = predictions[present], labels[present]
        if not len(labels):
            return cls(float("nan"), float("nan"), metric.name, metric.higher_is_better)
        value, loss = primary_and_loss(predictions, labels, target)
        return cls(value, loss, metric.name, metric.higher_is_better)

    def at(self, metric: str) -> float:
        """The metric ``loss`` or the primary metric, with its sign such that larger is better."""
        if metric == "loss":
            return -self.loss
        return self.value if self.higher_is_better else -self.value

    @staticmethod
    def mean(scores: Sequence[Scores]) -> Scores:
        """The mean scores of several learners."""
        value, loss = sum(s.value for s in scores) / len(scores), sum(s.loss for s in scores) / len(scores)
        return replace(scores[0], value=value, loss=loss)


def primary_and_loss(predictions: np.ndarray, labels: np.ndarray, target: Target) -> tuple[float, float]:
    """The primary metric of `target`, and the mean loss."""
    smallest = np.finfo(np.float32).tiny  # a probability of 0 has underflowed in float32; avoids log(0)
    if target.is_classes:
        own = predictions[np.arange(len(labels)), labels].astype(np.float64)
        return float((predictions.argmax(1) == labels).mean()), float(-np.log(np.maximum(own, smallest)).mean())
    predicted, true = predictions.astype(np.float64), labels.astype(np.float64)
    if target.kind == "labels":
        own = np.where(true == 1, predicted, 1 - predicted)[~np.isnan(true)]
        return mean_average_precision(predicted, true), float(-np.log(np.maximum(own, smallest)).mean())
    loss = float(np.nanmean((target.normalised(predicted) - target.normalised(true)) ** 2))
    each = mean_errors(np.abs(predicted - true)) if target.primary == "mae" else r_squared(predicted, true)
    return float(mean_known(each)), loss


def metric_of(training: Training) -> str:
    """The metric that selects the best epoch: ``loss``, or ``accuracy`` for the target's primary metric."""
    return training.early_stopping.metric if training.early_stopping else "accuracy"


def reads_loss(training: Training) -> bool:
    """True if early stopping or the learning rate depends on the validation loss."""
    rule = training.learning_rate
    return metric_of(training) == "loss" or (rule.name == "plateau" and rule.monitor == "validation-loss")


def by_loss_only(training: Training) -> bool:
    """True if whatever reads the validation split reads its loss, which is defined wherever there are labels."""
    rule = training.learning_rate
    chooses = training.select == "best" or training.early_stopping is not None
    return not (chooses and metric_of(training) != "loss") and not (
        rule.name == "plateau" and rule.monitor == "validation-accuracy"
    )


def improved(learner: Learner, training: Training, score: Scores) -> bool:
    """Update early stopping with an epoch's score; returns True if the epoch is the best so far and must be kept.

    Raises:
        TrainingError: If the score is undefined, such as R² of equal values.
    """
    value = score.at(metric_of(training))
    if np.isnan(value) and training.reads_validation in ("select", "early_stopping"):
        what = "loss" if metric_of(training) == "loss" else score.name
        raise TrainingError(f"{learner.name}: {what} is undefined on the validation samples, so no epoch is the best")
    if training.early_stopping:
        better = value > learner.reference + training.early_stopping.min_delta
        learner.reference, learner.stale = (value, 0) if better else (learner.reference, learner.stale + 1)
    if training.select != "best" or not value > learner.best_score:
        return False
    learner.best_score = value
    return True


def early_end(context: StageContext, groups: Sequence[Sequence[str]]) -> str:
    """The reason to stop the stage early; empty unless every learner's patience is exhausted."""
    learners = context.by_name
    for names in groups:
        stopping = context.training(names[0]).early_stopping
        if stopping is None or learners[names[0]].stale < stopping.patience:
            return ""
    stopping = context.training(groups[0][0]).early_stopping
    assert stopping is not None
    than = f" by more than {stopping.min_delta:g}" if stopping.min_delta else ""
    metric = stopping.metric if stopping.metric != "map" else "mAP"
    return f"validation {metric} did not improve{than} for {stopping.patience} epochs (early_stopping)"


def follow_plateaus(
    context: StageContext, groups: Iterable[Sequence[str]], scores: Mapping[str, Scores], means: Mapping[str, float]
) -> None:
    """Step the `ReduceLROnPlateau` schedulers of a stage.

    Args:
        context: The current stage.
        groups: Groups of learners that share one best epoch; the schedulers of a group see its mean.
        scores: Learner → validation scores.
        means: ``learner/term`` → mean loss of the epoch; none for a term without samples.
    """
    learners, fused = context.by_name, context.step.networks.fused
    for names in groups:
        for name in [*names, FUSION] if FUSION in learners and set(names) <= set(fused) else names:
            scheduler = learners[name].scheduler
            if (
                isinstance(scheduler, ReduceLROnPlateau)
                and (value := _monitored(context, name, names, scores, means)) is not None
            ):
                scheduler.step(value)


def _monitored(
    context: StageContext, name: str, group: Sequence[str], scores: Mapping[str, Scores], means: Mapping[str, float]
) -> float | None:
    """The value that a scheduler follows; None for a training loss if a weighted term had no samples in the epoch."""
    monitor = context.training(name).learning_rate.monitor
    if monitor == "training-loss":
        terms = [term for term in context.step.terms if term.learner in group]
        weights = {f"{term.learner}/{term.spec.id}": context.step.progress[term.learner].at(term.spec.weight) for term in terms}
        known = all(term in means for term, weight in weights.items() if weight)
        return sum(means[term] * weight for term, weight in weights.items() if weight) / len(group) if known else None
    score = Scores.mean([scores[each] for each in group])
    return score.value if monitor == "validation-accuracy" else score.loss


@contextmanager
def averages_applied(learners: Iterable[Learner]) -> Iterator[None]:
    """Context in which learners with a moving average (``ema``) have the averaged weights."""
    with ExitStack() as stack:
        for learner in learners:
            if learner.average:
                stack.enter_context(learner.average.applied())
        yield
