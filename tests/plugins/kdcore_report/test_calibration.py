from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdcore import LabelEvaluation
from kdcore.runs.metrics import evaluate
from kdcore_report.calibration import label_reliability, reliability
from kdcore_report.plots import reliability_picture


def brute_force(probabilities, labels, bins):
    """Guo's equation 3, answer by answer."""
    total = 0.0
    for m in range(bins):
        inside = [
            (p.max(), p.argmax() == y)
            for p, y in zip(probabilities, labels, strict=True)
            if m / bins < p.max() <= (m + 1) / bins + 1e-15
        ]
        if inside:
            total += abs(sum(right for _, right in inside) - sum(sure for sure, _ in inside)) / len(labels)
    return total


@given(st.integers(0, 1000), st.integers(2, 6), st.integers(1, 15))
def test_error_is_guos(seed, classes, bins):
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.ones(classes), 30)
    labels = generator.integers(0, classes, 30)
    found = reliability(evaluate(probabilities, labels), bins)
    assert found.error == pytest.approx(brute_force(probabilities, labels, bins), abs=1e-12)
    assert found.counts.sum() == 30


def test_a_confidence_on_an_edge_is_in_the_bin_below_as_guos_intervals_have_it():
    sure = np.array([0.5, 0.5, 0.625, 0.75, 1.0])
    found = reliability(evaluate(np.stack([sure, 1 - sure], axis=1), np.array([0, 1, 0, 0, 0])), 4)
    assert found.counts.tolist() == [0, 2, 2, 1]
    assert found.accuracy[1:].tolist() == [0.5, 1.0, 1.0]
    assert found.error == pytest.approx((2 * 0 + 2 * (1 - 0.6875) + 0) / 5)


def test_certain_and_right_is_calibrated_certain_and_wrong_is_not():
    labels = np.array([0, 1, 2, 0])
    assert reliability(evaluate(np.eye(3)[labels], labels)).error == 0
    assert reliability(evaluate(np.eye(3)[(labels + 1) % 3], labels)).error == 1


def test_diagram_is_drawn(tmp_path):
    generator = np.random.default_rng(0)
    one = reliability(evaluate(generator.dirichlet(np.ones(3), 50), generator.integers(0, 3, 50)))
    reliability_picture({"with": one, "without": one}, tmp_path / "two.png")
    reliability_picture({"with": one}, tmp_path / "one.png")
    from matplotlib.image import imread

    assert imread(tmp_path / "two.png").shape[1] > 1.5 * imread(tmp_path / "one.png").shape[1]


@given(st.integers(0, 1000), st.integers(1, 4), st.integers(1, 15))
def test_labels_are_calibrated_each_and_together(seed, labels, bins):
    """The same equation, of the label's probability and the share of samples that have it."""
    generator = np.random.default_rng(seed)
    probabilities, true = generator.random((30, labels)), generator.integers(0, 2, (30, labels))
    evaluation = LabelEvaluation(probabilities, true)

    def by_hand(p, y):
        total = 0.0
        for m in range(bins):
            inside = (p > m / bins) & (p <= (m + 1) / bins + 1e-15)
            if inside.any():
                total += inside.sum() / len(p) * abs(y[inside].mean() - p[inside].mean())
        return total

    for label in range(labels):
        expected = by_hand(probabilities[:, label], true[:, label])
        assert label_reliability(evaluation, label, bins).error == pytest.approx(expected, abs=1e-12)
    found = label_reliability(evaluation, None, bins)
    assert found.error == pytest.approx(by_hand(probabilities.ravel(), true.ravel()), abs=1e-12)
    assert found.counts.sum() == probabilities.size
