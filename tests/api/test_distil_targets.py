"""kdcore.distil on labels and values, and on loaders whose samples are labelled in part."""

from __future__ import annotations

import copy

import pytest
import torch
from distil_loops import CLASSES, SGD, by_hand, mlp, same
from sklearn.metrics import average_precision_score
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import kdcore
from kdcore import DataError, DistillationLoss, Needs, RecipeError, UsageError


class TestOtherTargets:
    """Labels and values, against loops by hand."""

    @pytest.fixture
    def x(self):
        torch.manual_seed(0)
        return torch.randn(44, 6)

    @staticmethod
    def run(x, y, losses, objective, target, **options):
        """The student after `kdcore.distil` and another after a loop by hand, and the result."""
        torch.manual_seed(1)
        student, teacher = mlp(8), mlp(16)
        other, loader = copy.deepcopy(student), DataLoader(TensorDataset(x, y), batch_size=8)
        found = kdcore.distil(student, teacher, loader, losses, target=target, epochs=3, optimizer=SGD, device="cpu", **options)
        by_hand(other, teacher, loader, 3, 0.1, objective)
        same(student, other, rtol=1e-5, atol=1e-6)
        return student, found

    def test_labels_and_their_map(self, x):
        y = (torch.rand(44, CLASSES, generator=torch.Generator().manual_seed(2)) < 0.4).float()
        held = TensorDataset(x[:20], y[:20])

        def objective(z, t, y):
            soft = CLASSES * F.binary_cross_entropy_with_logits(z, t.sigmoid())  # a sum over labels
            return F.binary_cross_entropy_with_logits(z, y) + 2.0 * soft

        losses = ["binary-cross-entropy", {"name": "bce", "weight": 2.0, "temperature": 1.0}]
        student, found = self.run(x, y, losses, objective, "labels", validation=DataLoader(held, batch_size=6))
        with torch.no_grad():
            score = average_precision_score(y[:20], student(x[:20]).sigmoid(), average="macro")
        assert found.history["map"].iloc[-1] == pytest.approx(score)
        assert "accuracy" not in found.history

    @pytest.mark.parametrize("columns", [1, 3])
    def test_values_and_their_mae(self, x, columns):
        y = torch.stack([x.sum(1), 5 + x[:, 0], -x[:, 1]], 1)[:, :columns]
        torch.manual_seed(1)
        student, other = nn.Linear(6, columns), nn.Linear(6, columns)
        other.load_state_dict(student.state_dict())
        loader = DataLoader(TensorDataset(x, y[:, 0] if columns == 1 else y), batch_size=11)
        found = kdcore.distil(
            student, {}, loader, ["regression"], target="values", epochs=2, validation=loader, optimizer=SGD, device="cpu"
        )
        optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
        for _ in range(2):
            for rows in torch.arange(44).split(11):
                optimizer.zero_grad()
                ((other(x[rows]) - y[rows]) ** 2).mean().backward()
                optimizer.step()
        same(student, other, rtol=1e-5, atol=1e-6)
        assert found.history["mae"].iloc[-1] == pytest.approx((other(x) - y).abs().mean().item(), rel=1e-4)

    def test_samples_without_a_target_are_left_out(self, x):
        y = x[:, :CLASSES].clone()
        y[::3] = float("nan")

        def objective(z, t, y):
            there = ~y.isnan().any(1)
            return F.mse_loss(z[there], y[there]) + F.mse_loss(z, t)

        self.run(x, y, ["regression", "logits"], objective, "values")

    def test_values_that_are_not_known_are_left_out(self, x):
        random = torch.Generator().manual_seed(3)
        y = x[:, :CLASSES].clone()
        y[torch.rand(44, CLASSES, generator=random) < 0.3] = float("nan")
        y[3] = float("nan")

        def objective(z, t, y):
            there = ~y.isnan()
            return F.mse_loss(z[there], y[there])

        held = DataLoader(TensorDataset(x, y), batch_size=8)
        student, found = self.run(x, y, ["regression"], objective, "values", validation=held)
        with torch.no_grad():
            each = (student(x) - y).abs().nanmean(0)
        assert found.history["mae"].iloc[-1] == pytest.approx(each.mean().item(), rel=1e-5)

    def test_labels_that_are_not_known_are_left_out(self, x):
        random = torch.Generator().manual_seed(2)
        y = (torch.rand(44, CLASSES, generator=random) < 0.4).float()
        y[torch.rand(44, CLASSES, generator=random) < 0.3] = float("nan")
        y[3] = float("nan")

        def objective(z, t, y):
            there = ~y.isnan()
            return F.binary_cross_entropy_with_logits(z[there], y[there])

        held = DataLoader(TensorDataset(x, y), batch_size=8)
        student, found = self.run(x, y, ["binary-cross-entropy"], objective, "labels", validation=held)
        with torch.no_grad():
            p = student(x).sigmoid()
        each = [average_precision_score(y[t, c], p[t, c]) for c in range(CLASSES) for t in (~y[:, c].isnan(),)]
        assert found.history["map"].iloc[-1] == pytest.approx(sum(each) / CLASSES)

    def test_a_loss_that_needs_all_labels_of_a_later_batch(self, x):
        class Needy(DistillationLoss):
            needs, targets = Needs(labels=True), ("labels",)

            def forward(self, ctx):
                return ((ctx.student.logits - ctx.labels) ** 2).mean()

        partly = torch.zeros(4, 3)
        partly[1, 2] = float("nan")
        loader = [(x[:4], torch.zeros(4, 3)), (x[4:8], partly)]
        with pytest.raises(DataError, match="'Needy' needs all labels of a sample"):
            kdcore.distil(mlp(4), {}, loader, [Needy()], target="labels", device="cpu")
        with pytest.raises(RecipeError, match="needs all labels of a sample"):
            kdcore.distil(mlp(4), {}, loader[1:], [Needy()], target="labels", device="cpu")

    def test_weights_of_samples(self):
        """The weighted mean of each batch; validation counts every sample alike."""
        torch.manual_seed(4)
        x, y, w = torch.randn(20, 6), torch.randint(CLASSES, (20,)), torch.rand(20) + 0.1
        student = mlp(8)
        other = copy.deepcopy(student)
        loader = [{"x": x[rows], "labels": y[rows], "weights": w[rows]} for rows in torch.arange(20).split(5)]
        held = DataLoader(TensorDataset(x, y), batch_size=5)
        kdcore.distil(student, {}, loader, ["cross-entropy"], epochs=2, validation=held, optimizer=SGD, device="cpu")
        optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
        for _ in range(2):
            for rows in torch.arange(20).split(5):
                optimizer.zero_grad()
                losses = F.cross_entropy(other(x[rows]), y[rows], reduction="none")
                ((w[rows] * losses).sum() / w[rows].sum()).backward()
                optimizer.step()
        same(student, other, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize(
        ("target", "y", "losses", "error", "message"),
        [
            ("classes", torch.full((4,), 0.5), ["cross-entropy"], DataError, "one whole number .*not 0.5.*target='values'"),
            ("classes", torch.full((4,), float("nan")), ["cross-entropy"], DataError, "one whole number .*not nan"),
            ("classes", torch.zeros(4, 3), ["cross-entropy"], DataError, r"not of the shape \(4, 3\).*target='labels'"),
            ("labels", torch.zeros(4), ["binary-cross-entropy"], DataError, r"\(samples, labels\), not of the shape \(4,\)"),
            ("labels", torch.full((4, 3), 0.5), ["binary-cross-entropy"], DataError, "not known, not 0.5"),
            ("labels", torch.zeros(4, 2), ["binary-cross-entropy"], DataError, "have 2 labels, but the student outputs 3"),
            ("labels", torch.zeros(4, 3), ["cross-entropy"], RecipeError, "use 'binary-cross-entropy'"),
            ("values", torch.full((4, 3), float("inf")), ["regression"], DataError, "finite"),
            ("values", torch.zeros(4, 3), ["soft-target"], RecipeError, "the dataset's target is 'values'"),
            ("value", torch.zeros(4, 3), ["regression"], UsageError, "'value' is not one of classes, labels, values"),
        ],
    )  # fmt: skip
    def test_mistakes(self, target, y, losses, error, message):
        loader = [(torch.zeros(4, 6), y)]
        with pytest.raises(error, match=message):
            kdcore.distil(mlp(4), mlp(5), loader, losses, target=target, device="cpu")

    def test_weights_that_are_none(self, x):
        loader = [{"x": x[:4], "y": torch.zeros(4), "weights": torch.tensor([1.0, 2.0, 0.0, 1.0])}]
        with pytest.raises(DataError, match="weights must be one number greater than 0"):
            kdcore.distil(mlp(4), {}, loader, ["cross-entropy"], device="cpu")
        some = [{"x": x[:4], "y": torch.zeros(4), "weights": torch.ones(4)}, (x[:4], torch.zeros(4))]
        with pytest.raises(DataError, match="give every batch weights"):
            kdcore.distil(mlp(4), {}, some, ["cross-entropy"], device="cpu")

    def test_a_loss_that_does_not_heed_weights(self, x):
        loader = [{"x": x[:4], "y": torch.arange(4) % 3, "weights": torch.ones(4)}]
        with pytest.raises(RecipeError, match="'dkd' ignores the weights"):
            kdcore.distil(mlp(4), mlp(5), loader, ["dkd"], device="cpu")


@pytest.mark.parametrize(
    ("target", "losses", "labels"),
    [
        ("classes", ["cross-entropy", "dist"], torch.tensor([0, 1, 2, 0] * 4)),
        ("labels", ["binary-cross-entropy", "bce"], torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]] * 8)),
        ("values", ["regression", "logits"], torch.randn(16, 3)),
    ],
)
def test_the_first_batch_may_have_no_labels(target, losses, labels):
    x, y = torch.randn(16, 6), labels.clone()
    y[:8] = -1 if target == "classes" else torch.nan
    student, teacher = nn.Linear(6, 3), nn.Linear(6, 3)
    before = student.weight.detach().clone()
    loader = DataLoader(TensorDataset(x, y), batch_size=8)
    kdcore.distil(student, teacher, loader, losses, target=target, epochs=1, device="cpu")
    assert not torch.equal(student.weight, before)
    y[:] = y[0]
    with pytest.raises(DataError, match=r"gave no labelled sample in epoch 1, but the loss '.*' reads labels"):
        kdcore.distil(student, teacher, loader, losses, target=target, epochs=1, device="cpu")
