"""The training loss that a plateau follows, if a term has no samples in an epoch."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kdcore import LearningRate, Progress, Ramp
from kdcore.training.validation import _monitored


def monitored(means, weights):
    terms = [
        SimpleNamespace(learner=learner, spec=SimpleNamespace(id=name, weight=weight))
        for (learner, name), weight in weights.items()
    ]
    progress = {learner: Progress(epoch=1) for learner, _ in weights}
    training = SimpleNamespace(learning_rate=LearningRate("plateau", monitor="training-loss"))
    context = SimpleNamespace(training=lambda name: training, step=SimpleNamespace(terms=terms, progress=progress))
    return _monitored(context, "a", ["a", "b"], {}, means)


WEIGHTS = {("a", "cross-entropy"): 2.0, ("a", "soft-target"): Ramp(0, 1, 2), ("b", "dist"): 1.0, ("c", "dist"): 5.0}


def test_it_is_the_weighted_sum_of_the_groups_terms():
    means = {"a/cross-entropy": 3.0, "a/soft-target": 4.0, "b/dist": 1.0, "c/dist": 100.0}
    assert monitored(means, WEIGHTS) == pytest.approx((2 * 3 + 0.5 * 4 + 1) / 2)


def test_it_is_unknown_in_an_epoch_without_samples_of_a_weighted_term():
    assert monitored({"a/cross-entropy": 3.0, "b/dist": 1.0}, WEIGHTS) is None
    without_weight = {**WEIGHTS, ("a", "soft-target"): 0.0}
    assert monitored({"a/cross-entropy": 3.0, "b/dist": 1.0}, without_weight) == pytest.approx(3.5)
