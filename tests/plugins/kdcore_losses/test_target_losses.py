"""Losses of labels, values and weighted samples, against torch and loops."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch.nn import functional as F

from kdcore import Batch, Example, LossContext, Outputs
from kdcore_losses.binary_cross_entropy import BinaryCrossEntropy
from kdcore_losses.cross_entropy import CrossEntropy
from kdcore_losses.focal import Focal
from kdcore_losses.regression import BoundedRegression, Regression

torch.manual_seed(0)
LOGITS, TEACHER = torch.randn(6, 3), torch.randn(6, 3)
LABELS, VALUES = (torch.randn(6, 3) > 0).float(), torch.randn(6, 3)
CLASSES, WEIGHTS = torch.tensor([0, 1, 2, 1, 0, 2]), torch.tensor([1.0, 2.0, 0.5, 3.0, 1.0, 0.25])


def context(labels, weights=None):
    batch = Batch(torch.arange(6), {}, labels, (), weights)
    return LossContext(Outputs(LOGITS), {"t": Outputs(TEACHER)}, batch)


def weighted(losses):
    """Of a weight for each sample, by a loop."""
    return sum(float(w) * float(x) for w, x in zip(WEIGHTS, losses, strict=True)) / float(WEIGHTS.sum())


def test_binary_cross_entropy_is_torchs():
    loss = BinaryCrossEntropy()
    assert loss(context(LABELS)) == F.binary_cross_entropy_with_logits(LOGITS, LABELS)
    each = F.binary_cross_entropy_with_logits(LOGITS, LABELS, reduction="none").mean(1)
    assert float(loss(context(LABELS, WEIGHTS))) == pytest.approx(weighted(each))


def test_positive_weights_are_torchs_pos_weight():
    counts = LABELS.sum(0).long()
    loss = BinaryCrossEntropy(positive_weights="balanced")
    loss.setup(Example(Outputs(LOGITS), {}, 3, class_counts=counts, labelled=6))
    balanced = torch.where(counts > 0, (6 - counts) / counts.clamp_min(1), 1.0)
    balanced = torch.where(balanced > 0, balanced, 1.0)
    assert float(loss(context(LABELS))) == pytest.approx(
        float(F.binary_cross_entropy_with_logits(LOGITS, LABELS, pos_weight=balanced))
    )
    named = BinaryCrossEntropy(positive_weights={"run": 2.0})
    with pytest.raises(ValueError, match="there is no label 'run'"):
        named.setup(Example(Outputs(LOGITS), {}, 3, ("walk", "sit", "jump")))


@pytest.mark.parametrize(
    ("error", "torchs"),
    [("squared", F.mse_loss), ("absolute", F.l1_loss), ("huber", lambda a, b, **how: F.huber_loss(a, b, delta=0.7, **how))],
)
def test_regression_is_torchs(error, torchs):
    loss = Regression(error=error, delta=0.7)
    assert loss(context(VALUES)) == torchs(LOGITS, VALUES)
    each = torchs(LOGITS, VALUES, reduction="none").mean(1)
    assert float(loss(context(VALUES, WEIGHTS))) == pytest.approx(weighted(each))


def test_bounded_regression_by_a_loop():
    own, theirs = (((each - VALUES) ** 2).mean(1).tolist() for each in (LOGITS, TEACHER))
    wanted = [a if a + 0.2 > b else 0.0 for a, b in zip(own, theirs, strict=True)]
    assert 0.0 in wanted
    assert float(BoundedRegression(margin=0.2)(context(VALUES))) == pytest.approx(np.mean(wanted))


@pytest.mark.parametrize("classes", [None, {"0": 3.0, "2": 0.5}])
def test_cross_entropy_with_weights_is_scikit_learns(classes):
    loss = CrossEntropy(class_weights=classes)
    loss.setup(Example(Outputs(LOGITS), {}, 3))
    of_class = torch.tensor([3.0, 1.0, 0.5]) if classes else torch.ones(3)
    sample_weight = WEIGHTS * of_class[CLASSES]
    expected = log_loss(CLASSES, LOGITS.softmax(1).double(), sample_weight=sample_weight)
    assert float(loss(context(CLASSES, WEIGHTS))) == pytest.approx(expected, rel=1e-5)


def test_focal_with_weights_by_a_loop():
    p = LOGITS.softmax(1).gather(1, CLASSES[:, None])[:, 0]
    assert float(Focal(gamma=2.0)(context(CLASSES, WEIGHTS))) == pytest.approx(weighted(-((1 - p) ** 2) * p.log()), rel=1e-5)


PARTLY = LABELS.clone()
PARTLY[0, 1] = PARTLY[2, 0] = PARTLY[2, 2] = PARTLY[5, 1] = float("nan")


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_labels_that_are_not_known_do_not_count(weights):
    """Value and gradient by a loop over the known labels."""
    logits = LOGITS.clone().requires_grad_()
    context = LossContext(Outputs(logits), {}, Batch(torch.arange(6), {}, PARTLY, (), weights))
    value = BinaryCrossEntropy()(context)
    [slope] = torch.autograd.grad(value, logits)
    total, count, slopes = 0.0, 0.0, torch.zeros(6, 3)
    for b in range(6):
        w = 1.0 if weights is None else float(weights[b])
        for c in range(3):
            if not PARTLY[b, c].isnan():
                p, y = float(LOGITS[b, c].sigmoid()), float(PARTLY[b, c])
                total -= w * float(np.log(p if y else 1 - p))
                slopes[b, c] = w * (p - y)
                count += w
    assert value.item() == pytest.approx(total / count, rel=1e-5)
    torch.testing.assert_close(slope, slopes / count, rtol=1e-5, atol=1e-7)


NOT_ALL = torch.where(PARTLY.isnan(), torch.nan, VALUES)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("error", ["squared", "absolute"])
def test_values_that_are_not_known_do_not_count(weights, error):
    """Value and gradient by a loop over the known values."""
    logits = LOGITS.clone().requires_grad_()
    context = LossContext(Outputs(logits), {}, Batch(torch.arange(6), {}, NOT_ALL, (), weights))
    value = Regression(error=error)(context)
    [slope] = torch.autograd.grad(value, logits)
    total, count, slopes = 0.0, 0.0, torch.zeros(6, 3)
    for b in range(6):
        w = 1.0 if weights is None else float(weights[b])
        for c in range(3):
            if not PARTLY[b, c].isnan():
                d = float(LOGITS[b, c] - VALUES[b, c])
                total += w * (d * d if error == "squared" else abs(d))
                slopes[b, c] = w * (2 * d if error == "squared" else np.sign(d))
                count += w
    assert value.item() == pytest.approx(total / count, rel=1e-5)
    torch.testing.assert_close(slope, slopes / count, rtol=1e-5, atol=1e-6)


def test_bounded_regression_leaves_out_values_that_are_not_known():
    known = ~NOT_ALL.isnan().numpy()
    wanted = []
    for b in range(6):
        own, theirs = (float(((each[b] - VALUES[b])[known[b]] ** 2).mean()) for each in (LOGITS, TEACHER))
        wanted.append(own if own + 0.2 > theirs else 0.0)
    assert float(BoundedRegression(margin=0.2)(context(NOT_ALL))) == pytest.approx(np.mean(wanted), rel=1e-5)


def test_balanced_weights_count_the_known_labels_of_each():
    known, counts = (~PARTLY.isnan()).sum(0), (PARTLY == 1).sum(0)
    loss = BinaryCrossEntropy(positive_weights="balanced")
    loss.setup(Example(Outputs(LOGITS), {}, 3, class_counts=counts, labelled=known))
    ratio = (known - counts) / counts
    expected = torch.where((counts > 0) & (ratio > 0), ratio, 1.0)
    assert loss.positive is not None
    torch.testing.assert_close(loss.positive, expected)
