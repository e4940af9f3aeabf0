"""PCGrad and MGDA against their definitions, computed by hand, by SciPy, and by plain PyTorch."""

from __future__ import annotations

import copy
from dataclasses import replace

import learning
import numpy as np
import pytest
import torch
from learning import Labels, fit
from scipy.optimize import minimize
from torch import nn
from torch.nn import functional as F

from kdcore import DistillationLoss, Participant, Training
from kdcore.training.gradient_balance import combined, project_conflicts, shortest
from kdcore.training.participants import Distiller, TermSpec


def drawn(terms, size=7, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((terms, size)))


def order():
    return torch.Generator().manual_seed(3)


def test_two_conflicting_gradients_lose_what_is_against_the_other():
    a, b = torch.tensor([1.0, 0.0]).double(), torch.tensor([-1.0, 1.0]).double()
    found = project_conflicts(torch.stack([a, b]), order())
    torch.testing.assert_close(found, torch.tensor([0.5, 0.5]).double() + torch.tensor([0.0, 1.0]).double())


def test_gradients_that_agree_are_added():
    gradients = drawn(4).abs()
    torch.testing.assert_close(project_conflicts(gradients, order()), gradients.sum(0))


def test_several_gradients_are_projected_one_after_another_in_the_drawn_order():
    gradients = drawn(4, seed=1)
    orders, found = order(), 0
    for i in range(4):
        g = gradients[i].numpy().copy()
        for j in torch.randperm(4, generator=orders).tolist():
            other = gradients[j].numpy()
            if j != i and g @ other < 0:
                g -= (g @ other) / (other @ other) * other
        found = found + g
    np.testing.assert_allclose(project_conflicts(gradients, order()).numpy(), found, rtol=1e-12)


def test_a_gradient_of_zero_changes_nothing():
    gradients = torch.stack([drawn(1)[0], torch.zeros(7).double()])
    torch.testing.assert_close(project_conflicts(gradients, order()), gradients[0])
    assert torch.isfinite(shortest(torch.zeros(3, 7))).all()


def test_the_shortest_of_two_is_the_closed_form():
    for seed in range(20):
        a, b = drawn(2, seed=seed)
        share = float((((b - a) @ b) / ((a - b) @ (a - b))).clamp(0, 1))
        torch.testing.assert_close(shortest(torch.stack([a, b])), share * a + (1 - share) * b)


def scipys(gradients, largest):
    """The shares that make the combination shortest, by a general solver."""
    products, terms = (gradients @ gradients.T).numpy(), len(gradients)
    return minimize(
        lambda shares: shares @ products @ shares,
        np.full(terms, 1 / terms),
        bounds=[(0, largest)] * terms,
        constraints={"type": "eq", "fun": lambda shares: shares.sum() - 1},
        tol=1e-12,
    )


@pytest.mark.parametrize("terms", [3, 5])
def test_the_shortest_of_several_is_scipys_and_decreases_every_term(terms):
    gradients = drawn(terms, size=40, seed=terms) + 0.3
    found = shortest(gradients)
    assert float(found @ found) == pytest.approx(scipys(gradients, 1).fun, rel=1e-5)
    assert float((gradients @ found).min()) > 0


@pytest.mark.parametrize("largest", [0.25, 1 / 3, 0.4, 0.6, 0.9])
@pytest.mark.parametrize("terms", [2, 3, 5])
def test_no_share_exceeds_the_largest_that_is_asked_for(terms, largest):
    for seed in range(5):
        gradients = drawn(terms, size=9, seed=seed) * torch.arange(1.0, terms + 1)[:, None]
        found, limit = shortest(gradients, largest), max(largest, 1 / terms)
        shares = torch.linalg.lstsq(gradients.T, found).solution
        assert float(shares.sum()) == pytest.approx(1)
        assert float(shares.min()) > -1e-9
        assert float(shares.max()) < limit + 1e-9
        assert float(found @ found) == pytest.approx(scipys(gradients, limit).fun, rel=1e-5)
    if largest * terms <= 1:
        torch.testing.assert_close(found, gradients.mean(0))


@pytest.mark.parametrize("largest", [1.0, 0.6])
def test_a_term_without_a_gradient_does_not_stop_training(largest):
    """A hinge that every sample meets, for example."""
    weight = nn.Parameter(torch.tensor([1.0, 2.0]).double())
    terms = [weight.square().sum(), weight[0] * 3, (weight.sum() - 9).clamp(min=0)]
    (found,) = combined("mgda", terms, [weight], 0, largest)
    (expected,) = combined("mgda", terms[:2], [weight], 0, largest)
    assert expected.any()
    torch.testing.assert_close(found, expected)
    (alone,) = combined("mgda", terms[1:], [weight], 0, largest)
    torch.testing.assert_close(alone, torch.tensor([3.0, 0.0]).double())
    (none,) = combined("mgda", [terms[2], terms[2] * 2], [weight], 0, largest)
    assert not none.any()


def test_a_limit_is_for_mgda():
    with pytest.raises(ValueError, match="'largest_share' does not go with gradients 'pcgrad'; it is for 'mgda'"):
        Training(gradients="pcgrad", largest_share=0.6)


def test_parameters_of_one_term_keep_its_gradient_and_unreached_ones_none():
    shared, own, idle = (torch.tensor(each, dtype=torch.float64, requires_grad=True) for each in (2.0, 3.0, 4.0))
    terms = [shared * 1.0, -3.0 * shared + own**2]
    found = combined("pcgrad", terms, [shared, own, idle], 0)
    assert found[0] is not None
    assert float(found[0]) == 0.0, "each loses all: in one dimension, what is against the other is everything"
    assert float(found[1]) == 6.0
    assert found[2] is None
    assert float(combined("mgda", terms, [shared, own, idle], 0)[0]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("rule", "accumulate", "largest"), [("pcgrad", 1, 1), ("mgda", 1, 1), ("mgda", 1, 0.6), ("pcgrad", 2, 1)]
)
def test_training_takes_the_combined_gradient(tmp_path, rule, accumulate, largest):
    """Against a loop by hand, whose terms conflict: cross-entropy, and cross-entropy with the other class."""
    table = learning.table(tmp_path)
    rows: list[torch.Tensor] = []

    class Other(Labels):
        def forward(self, ctx):
            rows.append(ctx.batch.rows.clone())
            return F.cross_entropy(ctx.student.logits, 1 - ctx.labels)

    torch.manual_seed(5)
    encoder = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 2))
    theirs = copy.deepcopy(encoder)
    made = Distiller({}, {"student": Participant("student", encoder)})
    made.add_terms("student", [TermSpec("labels", 1.0, Labels), TermSpec("other", 0.4, Other)], lambda _: None)
    options = {"optimizer": {"name": "sgd", "lr": 0.1}, "gradients": rule, "accumulate": accumulate}
    options["largest_share"] = largest
    fit(made, table, [replace(learning.students(epochs=2, taught=(), **options), accumulate=accumulate)])

    optimizer, parameters = torch.optim.SGD(theirs.parameters(), lr=0.1), list(theirs.parameters())
    steps = len(rows) // 2
    for epoch in range(2):
        batches = rows[epoch * steps : (epoch + 1) * steps]
        for start in range(0, steps, accumulate):
            group, sums = batches[start : start + accumulate], torch.zeros(sum(p.numel() for p in parameters))
            for each in group:
                batch = table.batch(each, ["student"])
                logits = theirs(batch.signals["student"])
                values = F.cross_entropy(logits, batch.labels), 0.4 * F.cross_entropy(logits, 1 - batch.labels)
                a, b = (torch.cat([g.flatten() for g in torch.autograd.grad(v, parameters, retain_graph=True)]) for v in values)
                if rule == "pcgrad":
                    both = min(float(a @ b), 0.0)
                    sums += a - both / (b @ b) * b + b - both / (a @ a) * a
                else:
                    share = (((b - a) @ b) / ((a - b) @ (a - b))).clamp(1 - largest, largest)
                    sums += share * a + (1 - share) * b
            for parameter, part in zip(parameters, sums.split([p.numel() for p in parameters]), strict=True):
                parameter.grad = part.view_as(parameter) / len(group)
            optimizer.step()
    for mine, by_hand in zip(encoder.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, by_hand, rtol=1e-4, atol=1e-6)


class Free(DistillationLoss):
    """Draws the logits to 1; reads no label."""

    def forward(self, ctx):
        return ((ctx.student.logits - 1) ** 2).mean()


@pytest.mark.parametrize("rule", ["pcgrad", "mgda"])
def test_a_term_without_a_sample_in_a_batch_does_not_decide(tmp_path, rule):
    """The shortest combination with a gradient of 0 is 0: unlabelled batches would teach nothing."""
    table = learning.table(tmp_path)
    table = replace(table, train_labels=torch.full_like(table.train_labels, -1))
    torch.manual_seed(5)
    encoder = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 2))
    found = []
    for specs in ([TermSpec("free", 1.0, Free)], [TermSpec("labels", 1.0, Labels), TermSpec("free", 1.0, Free)]):
        mine = copy.deepcopy(encoder)
        made = Distiller({}, {"student": Participant("student", mine)})
        made.add_terms("student", specs, lambda _: None)
        options = {"optimizer": {"name": "sgd", "lr": 0.1}, "gradients": rule if len(specs) > 1 else "sum"}
        fit(made, table, [learning.students(epochs=2, taught=(), **options)])
        found.append(list(mine.parameters()))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    assert not torch.equal(found[1][-1], [*encoder.parameters()][-1])
