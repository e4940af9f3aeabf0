"""Losses on labels: class weights and focal loss against loops in float64, and what is refused."""

import math

import numpy as np
import pytest
import torch

from kdcore import Example, Outputs, loss
from kdcore_losses.cross_entropy import CrossEntropy
from kdcore_losses.focal import Focal
from kdcore_losses.label_loss import balanced_weights

LABELS = torch.tensor([0, 0, 0, 2, 1, 0])
COUNTS = torch.tensor([12, 3, 1])
NAMES = ("rest", "walk", "fall")


def example(counts=COUNTS):
    return Example(Outputs(torch.zeros(2, 3)), {}, 3, NAMES, counts)


def logits(seed=0):
    return 2 * torch.randn(6, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_loops(z, weights, smoothing=0.0, gamma=0.0):
    """Equations of the docstrings, a sample at a time."""
    total, norm = 0.0, 0.0
    for row, y in zip(z.tolist(), LABELS.tolist(), strict=True):
        log_sum = math.log(sum(map(math.exp, row)))
        q = [(1 - smoothing) * (c == y) + smoothing / 3 for c in range(3)]
        missed = 1 - math.exp(row[y] - log_sum)
        total -= missed**gamma * sum(weights[c] * q[c] * (row[c] - log_sum) for c in range(3))
        norm += weights[y]
    return total / norm


@pytest.mark.parametrize(
    ("made", "weights", "options"),
    [
        (CrossEntropy(class_weights={"fall": 5.0}), [1, 1, 5], {}),
        (CrossEntropy(class_weights={"fall": 5.0, "rest": 0.5}, label_smoothing=0.2), [0.5, 1, 5], {"smoothing": 0.2}),
        (CrossEntropy(class_weights="balanced"), [16 / 36, 16 / 9, 16 / 3], {}),
        (Focal(gamma=2.0), [1, 1, 1], {"gamma": 2}),
        (Focal(gamma=0.5, class_weights="balanced"), [16 / 36, 16 / 9, 16 / 3], {"gamma": 0.5}),
    ],
)
def test_values_are_those_of_loops(context, made, weights, options):
    made.setup(example())
    assert made(context(logits(), labels=LABELS)).item() == pytest.approx(by_loops(logits(), weights, **options), rel=1e-6)


def test_balanced_weights_give_every_class_the_same_share_of_the_training_samples():
    weights = balanced_weights(torch.tensor([30, 0, 6, 4])).double().numpy()
    assert weights[1] == 1
    np.testing.assert_allclose((weights * [30, 0, 6, 4])[[0, 2, 3]], 40 / 3, rtol=1e-6)


def test_focal_loss_at_zero_is_cross_entropy_with_the_same_gradient(context):
    z = logits().requires_grad_()
    one, other = (torch.autograd.grad(made(context(z, labels=LABELS)), z)[0] for made in (Focal(gamma=0.0), CrossEntropy()))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_of_a_sample_that_is_certain_has_a_finite_gradient(context, gamma):
    z = torch.tensor([[200.0, -200.0, 0.0]], requires_grad=True)
    for labels in ([0], [1]):
        (gradient,) = torch.autograd.grad(Focal(gamma=gamma)(context(z, labels=torch.tensor(labels))), z)
        assert gradient.isfinite().all()


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(ValueError, match="there is no class 'fal' \\(did you mean 'fall'\\?\\)"):
        CrossEntropy(class_weights={"fal": 2.0}).setup(example())
    with pytest.raises(ValueError, match="which is unknown here"):
        Focal(class_weights="balanced").setup(example(None))


def test_a_loss_on_plain_tensors_names_classes_by_number():
    weighted = loss("cross-entropy", class_weights={"2": 3.0})
    assert weighted(logits(), labels=LABELS).item() == pytest.approx(by_loops(logits(), [1, 1, 3]), rel=1e-6)
