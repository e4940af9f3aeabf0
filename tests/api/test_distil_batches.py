"""The batches that `kdcore.distil` reads."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from distil_loops import CLASSES, SGD, by_hand, lambda_module, same
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import kdcore
from kdcore import DataError, UsageError


class Forms(Dataset):
    """The same samples, in any form of batch."""

    def __init__(self, samples: TensorDataset, form: Any):
        self.samples, self.form = samples, form

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        x, y = self.samples[index]
        return self.form(x, y, index)


FORMS = {
    "pair": lambda x, y, i: (x, y),
    "teachers' input for all": lambda x, y, i: (x, 2 * x, y),
    "teachers' input by name": lambda x, y, i: (x, {"big": 2 * x}, y),
    "by name": lambda x, y, i: {"student": x, "big": 2 * x, "labels": y},
    "shared, by name": lambda x, y, i: {"x": x, "y": y, "index": i},
    "shared and one by name": lambda x, y, i: {"x": x, "big": 2 * x, "label": y},
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_batches(given, form):
    student, teacher, samples = given
    other = copy.deepcopy(student)
    loader = DataLoader(Forms(samples, FORMS[form]), batch_size=8)
    options = {"optimizer": SGD, "device": "cpu"}
    kdcore.distil(student, {"big": teacher}, loader, ["dist", "cross-entropy"], epochs=2, **options)
    factor = 1.0 if form in ("pair", "shared, by name") else 2.0
    dist = kdcore.loss("dist")
    by_hand(
        other,
        lambda_module(teacher, factor),
        DataLoader(samples, batch_size=8),
        2,
        0.1,
        lambda z, t, y: dist(z, t) * 1.0 + F.cross_entropy(z, y) * 1.0,
    )
    same(student, other)


class WhereKnown(kdcore.DistillationLoss):
    """Imitates the teacher, and keeps the labels that it is given."""

    needs = kdcore.Needs(teachers=1, labels="optional")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[int]] = []

    def forward(self, ctx: kdcore.LossContext) -> torch.Tensor:
        self.seen.append(ctx.labels.tolist())
        return (ctx.student.logits - ctx.teachers["teacher"].logits).square().mean()


def test_optional_labels_come_with_the_batches_that_have_them():
    x, y = torch.randn(3, 4, 6), torch.randint(3, (3, 4))
    batches = [{"x": x[0]}, {"x": x[1], "y": y[1]}, {"x": x[2], "y": torch.full((4,), -1)}]
    loss = WhereKnown()
    kdcore.distil(torch.nn.Linear(6, 3), torch.nn.Linear(6, 3), batches, [loss], epochs=1, device="cpu")
    assert loss.seen[-3:] == [[-1] * 4, y[1].tolist(), [-1] * 4]


def test_inputs_of_several_tensors():
    """The student is the same as one that reads the tensors joined to one."""

    class Joined(torch.nn.Module):
        def __init__(self, layer: torch.nn.Module):
            super().__init__()
            self.layer = layer

        def forward(self, x: tuple[torch.Tensor, ...]) -> torch.Tensor:
            return self.layer(torch.cat(x, 1))

    torch.manual_seed(0)
    student, teacher, x, y = torch.nn.Linear(9, 3), torch.nn.Linear(9, 3), torch.randn(12, 9), torch.randint(3, (12,))
    other = copy.deepcopy(student)
    several = [((x[rows, :4], x[rows, 4:]), y[rows]) for rows in torch.arange(12).split(4)]
    joined = [(x[rows], y[rows]) for rows in torch.arange(12).split(4)]
    options = {"epochs": 2, "optimizer": SGD, "device": "cpu"}
    kdcore.distil(Joined(student), Joined(teacher), several, ["soft-target", "cross-entropy"], **options)
    kdcore.distil(other, teacher, joined, ["soft-target", "cross-entropy"], **options)
    same(student, other)


def test_unlabelled_samples_are_left_out_of_terms_that_read_labels(given):
    student, teacher, samples = given
    x, y = samples.tensors[0], samples.tensors[1].clone()
    y[::2] = -1
    other = copy.deepcopy(student)
    loader = DataLoader(TensorDataset(x, y), batch_size=8)
    kdcore.distil(student, teacher, loader, ["dist", "cross-entropy"], epochs=2, optimizer=SGD, device="cpu")
    dist = kdcore.loss("dist")
    by_hand(other, teacher, loader, 2, 0.1, lambda z, t, y: dist(z, t) + F.cross_entropy(z[y >= 0], y[y >= 0]))
    same(student, other, rtol=1e-5, atol=1e-6)


def test_batches_without_labels(given):
    student, teacher, samples = given
    loader = [samples.tensors[0][:16], samples.tensors[0][16:32]]
    before = copy.deepcopy(student)
    kdcore.distil(student, teacher, loader, ["dist"], epochs=1, device="cpu")
    assert not torch.equal(before[0].weight, student[0].weight)
    with pytest.raises(DataError, match="'cross-entropy' reads labels, but the batches have none"):
        kdcore.distil(student, teacher, loader, ["cross-entropy"], device="cpu")


def test_losses_that_remember_samples_need_their_numbers(given):
    student, teacher, samples = given
    taps = {"student": {"features": "1"}, "big": {"features": "1"}}
    options = {"taps": taps, "epochs": 1, "device": "cpu"}
    with pytest.raises(DataError, match="give each batch an 'index'"):
        kdcore.distil(student, {"big": teacher}, DataLoader(samples, 8), ["crd"], **options)
    numbered = DataLoader(Forms(samples, FORMS["shared, by name"]), batch_size=8)
    kdcore.distil(student, {"big": teacher}, numbered, ["crd"], **options)


class Endless(IterableDataset):
    def __iter__(self):
        for number in range(1000):
            yield torch.full((6,), float(number % 5)), number % CLASSES


def test_a_loader_without_a_length_needs_steps(given):
    student, teacher, _ = given
    loader = DataLoader(Endless(), batch_size=4)
    with pytest.raises(UsageError, match="steps="):
        kdcore.distil(student, teacher, loader, ["dist"], device="cpu")
    found = kdcore.distil(student, teacher, loader, ["dist", "cross-entropy"], epochs=2, steps=3, device="cpu")
    assert len(found.history) == 2
    with pytest.raises(DataError, match="gave 250 batches in epoch 1, but 300 were expected"):
        kdcore.distil(student, teacher, loader, ["dist", "cross-entropy"], epochs=1, steps=300, device="cpu")


def test_unpack_reads_any_batch(given):
    student, teacher, samples = given
    other = copy.deepcopy(student)
    odd = [{"pixels": x[None], "meta": {"target": y[None]}} for x, y in samples]
    options = {"optimizer": SGD, "device": "cpu", "epochs": 1}
    kdcore.distil(student, teacher, odd, ["dist"], unpack=lambda b: (b["pixels"], b["meta"]["target"]), **options)
    kdcore.distil(other, teacher, DataLoader(samples, 1), ["dist"], **options)
    same(student, other)
