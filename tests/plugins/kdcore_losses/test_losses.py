"""Properties of every loss here, and brute-force counterparts of the relational ones."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcore import Example, Progress, Ramp
from kdcore_losses.attention_transfer import AttentionTransfer
from kdcore_losses.ca_mkd import ConfidenceAware
from kdcore_losses.correlation_congruence import CorrelationCongruence
from kdcore_losses.cross_entropy import CrossEntropy
from kdcore_losses.dkd import DecoupledDistillation
from kdcore_losses.fitnet import FitNet
from kdcore_losses.logits import Logits
from kdcore_losses.rkd import RelationalDistillation
from kdcore_losses.similarity_preserving import SimilarityPreserving
from kdcore_losses.soft_target import SoftTarget

ALL = {
    "cross-entropy": CrossEntropy(label_smoothing=0.1),
    "soft-target": SoftTarget(),
    "logits": Logits(),
    "dkd": DecoupledDistillation(),
    "ca-mkd": ConfidenceAware(features=1.0),
    "fitnet": FitNet(regressor="needed"),
    "attention-transfer": AttentionTransfer(),
    "rkd": RelationalDistillation(),
    "similarity-preserving": SimilarityPreserving(),
    "correlation-congruence": CorrelationCongruence(),
}
RELATIONAL = ("rkd", "similarity-preserving", "correlation-congruence")
every_loss = pytest.mark.parametrize("loss", ALL.values(), ids=ALL)


def batch(size, seed=0, dtype=torch.float64):
    """Student's logits and maps (both with a graph), two teachers' ones, labels."""
    torch.manual_seed(seed)
    logits, maps = torch.randn(3, size, 4, dtype=dtype), torch.randn(3, size, 5, 6, dtype=dtype)
    return logits[0].requires_grad_(), maps[0].requires_grad_(), list(logits[1:]), list(maps[1:]), torch.randint(0, 4, (size,))


@every_loss
@given(seed=st.integers(0, 10**6), size=st.integers(2, 6))
@settings(max_examples=10, deadline=None)
def test_the_order_of_samples_does_not_matter(context, loss, seed, size):
    logits, maps, teachers, teacher_maps, labels = batch(size, seed)
    order = torch.randperm(size)
    value = loss(context(logits, teachers, labels, maps, teacher_maps))
    turned = context(
        logits[order], [each[order] for each in teachers], labels[order], maps[order], [each[order] for each in teacher_maps]
    )
    assert value.ndim == 0
    torch.testing.assert_close(loss(turned), value)


@every_loss
def test_the_student_gets_a_gradient_and_it_is_right(context, loss):
    logits, maps, teachers, teacher_maps, labels = batch(4)

    def value(logits, maps):
        return loss(context(logits, teachers, labels, maps, teacher_maps))

    gradients = torch.autograd.grad(value(logits, maps), (logits, maps), allow_unused=True)
    assert sum(float(each.abs().sum()) for each in gradients if each is not None) > 0
    assert torch.autograd.gradcheck(value, (logits, maps))


@every_loss
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("magnitude", [0.0, 1e4])
def test_finite_for_extreme_values_and_one_sample(context, loss, size, magnitude):
    logits, maps, teachers, teacher_maps, labels = batch(size, dtype=torch.float32)
    wild = [(magnitude * each.detach().sign()).requires_grad_() for each in (logits, maps)]
    wild_teachers, wild_maps = [-magnitude * each.sign() for each in teachers], [magnitude * each for each in teacher_maps]
    ctx = context(wild[0], wild_teachers, labels, wild[1], wild_maps)
    value = loss(ctx)
    value.backward()
    assert value.isfinite()
    assert all(each.grad is None or each.grad.isfinite().all() for each in wild)


@every_loss
def test_labels_are_declared_where_they_are_read(context, loss):
    logits, maps, teachers, teacher_maps, _ = batch(3)
    if loss.needs.labels:
        with pytest.raises(ValueError, match="labels are withheld"):
            loss(context(logits, teachers, None, maps, teacher_maps))
    else:
        assert loss(context(logits, teachers, None, maps, teacher_maps)).isfinite()


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("cross-entropy", "ca-mkd")])
def test_no_loss_for_a_student_that_answers_like_its_teacher(context, name):
    logits, maps, _, _, labels = batch(4)
    assert ALL[name](context(logits, [logits.detach()], labels, maps, [maps.detach()])).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", RELATIONAL)
def test_relations_need_no_common_shape(context, name):
    torch.manual_seed(0)
    student = torch.randn(4, 5, 6, dtype=torch.float64, requires_grad=True)
    image, folded = torch.randn(4, 3, 7, 2, dtype=torch.float64), torch.randn(8, 3, 9, dtype=torch.float64)
    value = ALL[name](context(features=student, teacher_features=[image, folded]))
    assert torch.autograd.grad(value, student)[0].abs().sum() > 0


def test_temperature_may_be_a_ramp(context):
    logits, _, teachers, _, _ = batch(4)
    ctx = context(logits, teachers)
    late = type(ctx)(ctx.student, ctx.teachers, ctx.batch, progress=Progress(epoch=10, epochs=20))
    ramp = SoftTarget(temperature=Ramp(1.0, 9.0, epochs=10))
    assert ramp(ctx).item() == pytest.approx(SoftTarget(temperature=1.0)(ctx).item())
    assert ramp(late).item() == pytest.approx(SoftTarget(temperature=9.0)(ctx).item())


def test_decoupled_parts_add_up_to_the_whole(context):
    """Eq. (6) of the paper: KL = TCKD + (1 - p_true) NCKD, for one sample."""
    logits, _, teachers, _, labels = batch(1)
    true = torch.softmax(teachers[0] / 4, dim=1)[0, labels[0]].item()
    ctx = context(logits, teachers[:1], labels)
    assert DecoupledDistillation(beta=1 - true)(ctx).item() == pytest.approx(SoftTarget()(ctx).item(), rel=1e-12)


def test_rkd_by_loops(context):
    student, teacher = (np.random.default_rng(seed).normal(size=(5, width)) for seed, width in ((0, 3), (1, 7)))

    def huber(x):
        return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5

    def distances(x):
        table = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
        return table / table[table > 0].mean()

    def cosine(x, i, j, k):
        a, b = x[i] - x[j], x[k] - x[j]
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b) if i != j != k else 0.0

    far = np.mean([huber(value) for value in (distances(student) - distances(teacher)).ravel()])
    corners = [(i, j, k) for i in range(5) for j in range(5) for k in range(5)]
    turned = np.mean([huber(cosine(student, *corner) - cosine(teacher, *corner)) for corner in corners])
    ctx = context(features=torch.from_numpy(student), teacher_features=[torch.from_numpy(teacher)])
    assert RelationalDistillation()(ctx).item() == pytest.approx(25 * far + 50 * turned, rel=1e-9)


def test_rkd_survives_identical_samples(context):
    student = torch.ones(3, 4, requires_grad=True)
    value = RelationalDistillation()(context(features=student, teacher_features=[torch.randn(3, 4)]))
    value.backward()
    assert value.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_correlation_congruence_approaches_the_gaussian_kernel(context):
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 6, dtype=torch.float64)
    kernels = []
    for x in (student.numpy(), teacher.numpy()):
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        kernels.append([[math.exp(-0.4 * ((a - b) ** 2).sum()) for b in x] for a in x])
    wanted = np.mean((np.array(kernels[0]) - np.array(kernels[1])) ** 2)
    value = CorrelationCongruence(order=20)(context(features=student, teacher_features=[teacher]))
    assert value.item() == pytest.approx(wanted, rel=1e-9)


def test_pairs_are_teacher_first_and_become_needs(context):
    loss = AttentionTransfer(pairs=[("deep", "shallow"), ("deep", "middle")])
    assert loss.needs.teacher_taps == ("deep",)
    assert loss.needs.student_taps == ("shallow", "middle")
    torch.manual_seed(0)
    deep, shallow, middle = torch.randn(3, 2, 4, 6)
    both = loss(context(features={"shallow": shallow, "middle": middle}, teacher_features=[{"deep": deep}], batch=2))
    each = [AttentionTransfer()(context(features=x, teacher_features=[deep])) for x in (shallow, middle)]
    torch.testing.assert_close(both, torch.stack(each).mean())
    with pytest.raises(ValueError, match="at least one pair"):
        AttentionTransfer(pairs=[])


def test_attention_needs_positions(context):
    ctx = context(features=torch.randn(2, 5), teacher_features=[torch.randn(2, 5, 8)])
    with pytest.raises(ValueError, match="compares positions"):
        AttentionTransfer().setup(Example(ctx.student, ctx.teachers))


@pytest.mark.parametrize("shape", [(4, 9), (4, 9, 11), (4, 9, 11, 3), (8, 9, 11, 3), (4, 9, 2, 5, 5)])
def test_fitnet_learns_to_translate_any_shape(context, shape):
    torch.manual_seed(0)
    student = torch.randn(4, 5, 6) if len(shape) > 2 else torch.randn(4, 5)
    ctx = context(features=student, teacher_features=[torch.randn(shape)])
    loss = FitNet()
    loss.setup(Example(ctx.student, ctx.teachers))
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    first = loss(ctx).item()
    for _ in range(30):
        optimizer.zero_grad()
        loss(ctx).backward()
        optimizer.step()
    assert loss(ctx).item() < 0.9 * first


def test_a_single_teacher_has_all_confidence(context):
    logits, _, teachers, _, labels = batch(4)
    ctx = context(logits, teachers[:1], labels)
    assert ConfidenceAware()(ctx).item() == pytest.approx(SoftTarget()(ctx).item(), rel=1e-12)
    assert ConfidenceAware().needs.student_taps == ()
