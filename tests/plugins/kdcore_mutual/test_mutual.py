"""Losses and schedule of mutual learning."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcore import Batch, Graph, LossContext, Outputs, Stage, Training
from kdcore.errors import RecipeError
from kdcore.recipe.load import load_recipe
from kdcore_mutual.losses import Divergence, HardTeacher, Mutual
from kdcore_mutual.schedule import MutualLearning

CASES = ["logits_b1c27", "logits_b2c27", "logits_b4c27", "logits_equal_b4c27"]
TAGS = {
    **{
        f"thoker_kl_{direction}_T{tau}": Divergence(temperature=float(tau), direction=direction)
        for direction in ("printed", "hinton")
        for tau in (1, 2, 10)
    },
    "thoker_ce_hard_teacher": HardTeacher(),
}
ALL = [Divergence(), Divergence(direction="hinton", squared=True), HardTeacher(), Mutual(), Mutual(direction="hinton")]
every_loss = pytest.mark.parametrize("loss", ALL, ids=lambda loss: f"{type(loss).__name__}-{getattr(loss, 'direction', '')}")


def context(student, others):
    """Labels are withheld, as they are from the students of the paper."""
    answers = {f"other{k}": Outputs(logits) for k, logits in enumerate(others)}
    return LossContext(Outputs(student), answers, Batch(torch.arange(len(student)), {}, None), peers=answers)


@pytest.fixture(scope="module")
def numbers(golden):
    return golden("b_losses")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("tag", TAGS)
def test_published_numbers(numbers, tag, case):
    student, teacher = (torch.from_numpy(numbers[f"in.{case}.{name}"]) for name in ("student", "teacher"))
    loss = TAGS[tag](context(student.requires_grad_(), [teacher]))
    (gradient,) = torch.autograd.grad(loss, student)
    np.testing.assert_allclose(loss.item(), numbers[f"out.{tag}.{case}.loss"], rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(gradient, numbers[f"out.{tag}.{case}.grad_student"], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("case", CASES)
def test_labels_and_a_peer_together(numbers, case):
    """Eq. (4) for two students."""
    student, peer, labels = (torch.from_numpy(numbers[f"in.{case}.{name}"]) for name in ("student", "teacher", "labels"))
    total = torch.nn.functional.cross_entropy(student, labels) + Mutual()(context(student, [peer]))
    np.testing.assert_allclose(total.item(), numbers[f"out.thoker_eq4_printed_tau10.{case}.loss"], rtol=1e-9)


def test_the_mean_over_peers_by_loops():
    student, *peers = (np.random.default_rng(seed).normal(size=(3, 5)) for seed in range(4))

    def soft(logits):
        powers = np.exp(logits / 10)
        return powers / powers.sum()

    terms = [
        sum(p * np.log(p / q) for p, q in zip(soft(row), soft(other), strict=True))
        for peer in peers
        for row, other in zip(student, peer, strict=True)
    ]
    found = Mutual()(context(torch.from_numpy(student), [torch.from_numpy(peer) for peer in peers]))
    assert found.item() == pytest.approx(np.mean(terms), rel=1e-9)


@every_loss
def test_gradient_by_finite_differences(loss):
    torch.manual_seed(0)
    student, *others = torch.randn(3, 4, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: loss(context(z, others)), (student.requires_grad_(),))


@every_loss
@given(st.integers(0, 10**6), st.integers(1, 6))
@settings(max_examples=15, deadline=None)
def test_the_order_of_samples_does_not_matter(loss, seed, size):
    torch.manual_seed(seed)
    student, *others = torch.randn(3, size, 4, dtype=torch.float64)
    order = torch.randperm(size)
    torch.testing.assert_close(loss(context(student[order], [each[order] for each in others])), loss(context(student, others)))


@every_loss
def test_finite_for_extreme_logits(loss):
    student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    value = loss(context(student, [torch.tensor([[-1e4, 1e4, 0.0]])]))
    value.backward()
    assert value.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_peers_get_no_gradient():
    student, peer = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    Mutual()(context(student, [peer])).backward()
    assert student.grad is not None
    assert peer.grad is None


def test_one_student_alone_has_nothing_to_agree_on():
    student = torch.randn(3, 4, requires_grad=True)
    value = Mutual()(context(student, []))
    value.backward()
    assert value.item() == 0
    assert Mutual.needs.peers == 1


def test_students_learn_from_a_teacher_without_any_label():
    """With hard targets, a linear student takes over what a teacher of another modality sees."""
    torch.manual_seed(0)
    x = torch.randn(64, 5)
    taught = x @ torch.randn(5, 3)
    student = torch.nn.Linear(5, 3)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        HardTeacher()(context(student(x), [taught])).backward()
        optimizer.step()
    assert (student(x).argmax(dim=1) == taught.argmax(dim=1)).float().mean() > 0.95


def test_students_learn_together_after_the_teachers():
    teachers, student = Training(epochs=3), Training(epochs=4)
    schedule = MutualLearning(teachers=teachers, student=student, teacher_split="teacher")
    assert list(schedule.stages(Graph.of(("rgb",), ("a", "b", "c")))) == [
        Stage("teachers", ("rgb",), teachers, 3, split="teacher"),
        Stage("students", ("a", "b", "c"), student, 4),
    ]
    assert [stage.learners for stage in schedule.stages(Graph.of((), ("a", "b")))] == [("a", "b")]


@pytest.mark.parametrize("changes", [["schedule.teacher_split=train"], ["schedule.name=two-stage"]])
def test_teachers_do_not_read_the_labels_that_students_are_not_told(changes):
    with pytest.raises(RecipeError, match="teachers learn from the labels of the 'train' split, which are withheld") as refused:
        load_recipe("crossmodal-mutual", changes)
    assert [problem.path for problem in refused.value.problems] == ["schedule"]
    load_recipe("crossmodal-mutual", [*changes, "data.labels=given"])
