"""Participants: who gives which outputs, with which graph."""

from __future__ import annotations

import pytest
import torch
import toys
from learning import Labels
from torch import nn

from kdcore import Batch, DistillationLoss, Example, Needs, Outputs, Participant, StagePlan, Training
from kdcore.contracts.training import MovingAverage
from kdcore.data.table import Table
from kdcore.training.participants import Average, Distiller, TermSpec, evaluating
from kdcore.training.step import StageStep
from kdcore.training.teacher_cache import CachedOutputs


def participant(name, norm=True, seed=0):
    torch.manual_seed(seed)
    layers = [nn.Linear(3, 4), *([nn.BatchNorm1d(4)] if norm else []), nn.ReLU(), nn.Linear(4, 2)]
    return Participant(name, nn.Sequential(*layers), {"first": "0"}).double()


@pytest.fixture
def x():
    return torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def batch(x):
    return Batch(torch.arange(len(x)), {"student": x, "teacher": x}, None)


def test_a_single_ablated_output_is_given_on_running_statistics(x):
    student = participant("student").train()
    made = Distiller({}, {"student": student})
    student(x * 3)
    statistics = {name: tensor.clone() for name, tensor in student.named_buffers()}
    outputs = made("student", batch(x), "single")
    with evaluating(student):
        expected = student(torch.zeros(1, 3, dtype=torch.float64))
    torch.testing.assert_close(outputs.ablated.logits, expected.logits)
    torch.testing.assert_close(outputs.ablated.features["first"], expected.features["first"])
    assert outputs.ablated.logits.requires_grad
    assert student.encoder[1].training
    assert int(student.encoder[1].num_batches_tracked) == int(statistics["encoder.1.num_batches_tracked"]) + 1


def test_mixed_ablated_outputs_share_the_batch_statistics(x):
    student = participant("student").train()
    made = Distiller({}, {"student": student})
    outputs = made("student", batch(x), "mixed")
    both = participant("same").train()(torch.cat([x, torch.zeros(5, 3, dtype=torch.float64)]))
    torch.testing.assert_close(outputs.logits, both.logits[:5])
    torch.testing.assert_close(outputs.ablated.logits, both.logits[5:])
    torch.testing.assert_close(outputs.ablated.features["first"], both.features["first"][5:])


def test_teachers_ablated_outputs_skip_their_batch_transforms(x):
    teacher = participant("teacher").eval()
    teacher.batch_transforms = nn.Threshold(10.0, 99.0)  # all of this input becomes 99
    made = Distiller({"teacher": teacher}, {})
    found = made.ablated_teachers(["teacher"], batch(x))
    expected = teacher.encoder(torch.zeros(1, 3, dtype=torch.float64))
    torch.testing.assert_close(found["teacher"].logits, expected)
    assert isinstance(teacher.batch_transforms, nn.Threshold)


class Ablation(DistillationLoss):
    needs = Needs(teachers=1, ablated="single")

    def forward(self, ctx):
        assert len(ctx.student.ablated.logits) == len(ctx.teachers["teacher"].ablated.logits) == 1
        return (ctx.student.logits - ctx.student.ablated.logits - ctx.teachers["teacher"].ablated.logits).square().mean()


def test_a_loss_that_asks_for_ablated_outputs_gets_them(x):
    made = Distiller({"teacher": participant("teacher", seed=1).eval()}, {"student": participant("student")})
    made.add_terms("student", [TermSpec("ablation", 2.0, Ablation, ("teacher",))], lambda _: Example(Outputs(x)))
    labels = torch.zeros(5, dtype=torch.long)
    table = Table((), labels, labels, {"train": torch.arange(5)}, {"student": (x,), "teacher": (x,)}, ("a", "b"), None, "")
    step = StageStep(made, StagePlan("s", ("student",), ("teacher",), {"student": Training()}, 1, "train", 5, ""), table, True)
    total, values = step(torch.arange(5), torch.arange(5))
    torch.testing.assert_close(total, 2 * values[0])
    total.backward()
    assert all(parameter.grad is None for parameter in made.teachers.parameters())
    assert all(parameter.grad is not None for parameter in made.students.parameters())


def test_ablated_outputs_of_a_moving_average_are_those_of_its_current_weights(x):
    teacher, kept = participant("teacher", seed=1).eval(), []

    class Kept(Ablation):
        def forward(self, ctx):
            kept.append(ctx.teachers["teacher"].ablated.logits)
            return super().forward(ctx)

    average = Average("student", MovingAverage())
    made = Distiller({"teacher": teacher}, {"student": participant("student")}, averages={"teacher": average})
    made.add_terms("student", [TermSpec("kept", 1.0, Kept, ("teacher",))], lambda _: Example(Outputs(x)))
    labels = torch.zeros(5, dtype=torch.long)
    table = Table((), labels, labels, {"train": torch.arange(5)}, {"student": (x,), "teacher": (x,)}, ("a", "b"), None, "")
    step = StageStep(made, StagePlan("s", ("student",), ("teacher",), {"student": Training()}, 1, "train", 5, ""), table, True)
    for factor in (1.0, 3.0):
        with torch.no_grad():
            for parameter in teacher.parameters():
                parameter.mul_(factor)
            expected = teacher.encoder(torch.zeros(1, 3, dtype=torch.float64))
        step(torch.arange(5), torch.arange(5))
        torch.testing.assert_close(kept[-1], expected)
    assert not torch.equal(kept[0], kept[1])


def test_kept_outputs_are_those_of_the_rows_asked_for():
    """Also where an activation has several rows per sample, such as a clip's frames."""
    rows = torch.tensor([7, 2, 5, 3])
    logits = rows.view(4, 1) * torch.ones(4, 3)
    frames = (rows.view(4, 1) * 10 + torch.arange(2)).float().flatten().view(8, 1)
    pieces = [Outputs(logits[:3], {"frames": frames[:6]}), Outputs(logits[3:], {"frames": frames[6:]})]
    kept = CachedOutputs.of_batches(rows, pieces, [3, 1], 9)
    found = kept.at(torch.tensor([3, 7]))
    assert found.logits[:, 0].tolist() == [3, 7]
    assert found.features["frames"].flatten().tolist() == [30, 31, 70, 71]
    assert kept.at(torch.tensor([5])).features["frames"].shape == (2, 1)


def test_a_module_returns_to_the_modes_it_was_in():
    module = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()))
    module[1].eval()
    with evaluating(module):
        assert not any(each.training for each in module.modules())
    assert [each.training for each in module.modules()] == [True, True, False, False]


def test_a_term_is_about_the_classes_that_everybody_in_it_knows():
    knows = {"all": None, "some": [0, -1, 1, 2, -1], "others": [-1, 0, 1, -1, 2], "every": [4, 3, 2, 1, 0]}
    members = {name: toys.participant(name, 2, classes=5, columns=columns) for name, columns in knows.items()}
    made = Distiller({name: members[name] for name in ("some", "others", "every")}, {"all": members["all"]})
    for teachers, expected in [
        ((), None),
        (("every",), None),
        (("some",), [0, 2, 3]),
        (("some", "others"), [2]),
        (("others", "every"), [1, 2, 4]),
    ]:
        found = made.known_classes("all", TermSpec("term", 1.0, Labels, teachers))
        assert (None if found is None else found.tolist()) == expected
    logits = members["others"].collect(torch.tensor([[1.0, 2.0, 3.0]])).logits
    assert logits.tolist() == [[-torch.inf, 1.0, 2.0, -torch.inf, 3.0]]
