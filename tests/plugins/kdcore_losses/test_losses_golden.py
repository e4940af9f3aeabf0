"""Values and gradients of published implementations, in float64."""

import numpy as np
import pytest
import torch

from kdcore import Example
from kdcore.functional import confidence_weights, label_losses
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

ON_LOGITS = ["logits_b1c27", "logits_b2c27", "logits_b4c27", "logits_equal_b4c27"]
ON_MAPS = ["fmap_b1c6h5w5", "fmap_b2c6h5w5", "fmap_b4c6h5w5", "fmap_relu_b4c6h5w5"]
ON_VECTORS = ["feat_b1d16", "feat_b2d16", "feat_b4d16", "feat_pos_b4d16"]
UNLIKE = ["fmapdiff_b4_s6x4x4_t10x8x8"]

OF_LOGITS = {
    **{f"kd_repdistiller_T{T}": SoftTarget(temperature=float(T)) for T in (1, 2, 4, 10)},
    "thoker_kl_hinton_T10": SoftTarget(temperature=10.0, squared=False),
    "logits_sakdn": Logits(),
    "ce": CrossEntropy(),
    "dkd_mdistiller_a1_b8_T4": DecoupledDistillation(),
}
OF_FEATURES = [
    ("hint_repdistiller", FitNet(regressor="needed"), ON_MAPS + ON_VECTORS),
    ("at_repdistiller_p2", AttentionTransfer(), ON_MAPS + UNLIKE),
    ("sp_repdistiller", SimilarityPreserving(), ON_MAPS + ON_VECTORS + UNLIKE),
    ("rkd_repdistiller_25_50", RelationalDistillation(), ON_MAPS[1:] + ON_VECTORS[1:]),
    ("rkd_repdistiller_dist", RelationalDistillation(distance=1, angle=0), ON_VECTORS[1:]),
    ("rkd_repdistiller_angle", RelationalDistillation(distance=0, angle=1), ON_VECTORS[1:]),
    ("cc_sakdn_g0.4_P2", CorrelationCongruence(), ON_VECTORS),
]


def agree(numbers, tag, case, loss, student):
    loss.backward()
    rtol = 1e-6 if tag.startswith("at_") else 1e-9
    np.testing.assert_allclose(loss.item(), numbers[f"out.{tag}.{case}.loss"], rtol=rtol, atol=1e-14)
    np.testing.assert_allclose(student.grad.numpy(), numbers[f"out.{tag}.{case}.grad_student"], rtol=rtol, atol=1e-13)


@pytest.fixture(scope="module")
def numbers(golden):
    return golden("b_losses")


@pytest.mark.parametrize("case", ON_LOGITS)
@pytest.mark.parametrize("tag", OF_LOGITS)
def test_losses_on_logits(numbers, context, tag, case):
    student, teacher, labels = (torch.from_numpy(numbers[f"in.{case}.{name}"]) for name in ("student", "teacher", "labels"))
    student.requires_grad_()
    agree(numbers, tag, case, OF_LOGITS[tag](context(student, [teacher], labels)), student)


@pytest.mark.parametrize(("tag", "loss", "case"), [(tag, loss, case) for tag, loss, cases in OF_FEATURES for case in cases])
def test_losses_on_features(numbers, context, tag, loss, case):
    student, teacher = (torch.from_numpy(numbers[f"in.{case}.{name}"]) for name in ("student", "teacher"))
    student.requires_grad_()
    agree(numbers, tag, case, loss(context(features=student, teacher_features=[teacher])), student)


def test_fitnet_with_its_regressor(numbers, context):
    student, teacher, weight = (torch.from_numpy(numbers[f"in.fitnet_reg.{name}"]) for name in ("student", "teacher", "weight"))
    ctx = context(features=student.requires_grad_(), teacher_features=[teacher])
    loss = FitNet()
    loss.setup(Example(ctx.student, ctx.teachers))
    (parameter,) = loss.parameters()
    parameter.data = weight.flatten(1)
    agree(numbers, "fitnet_sakdn_conv1x1", "fitnet_reg", loss(ctx), student)
    wanted = numbers["out.fitnet_sakdn_conv1x1.fitnet_reg.grad_weight"]
    np.testing.assert_allclose(parameter.grad.numpy(), wanted.reshape(parameter.shape), rtol=1e-9)


@pytest.mark.parametrize("case", ["camkd_b1K2", "camkd_b4K2"])
def test_confidence_aware_features(numbers, context, case):
    """The published code is given two students' activations; here they are one with twice the channels, cut by regressors."""
    names = ("teacher_logits", "labels", "student_feats", "teacher_feats")
    logits, labels, students, teachers = (torch.from_numpy(numbers[f"in.{case}.{name}"]) for name in names)
    student = torch.cat(list(students), dim=1).requires_grad_()
    ctx = context(logits[0], list(logits), labels, student, list(teachers))
    loss = ConfidenceAware(logits=0.0, features=1.0)
    loss.setup(Example(ctx.student, ctx.teachers))
    for parameter, cut in zip(loss.parameters(), torch.eye(6, dtype=torch.float64).split(3), strict=True):
        parameter.data = cut
    value = loss(ctx)
    value.backward()
    np.testing.assert_allclose(value.item(), numbers[f"out.camkd_official.{case}.loss"], rtol=1e-9)
    wanted = np.concatenate(list(numbers[f"out.camkd_official.{case}.grad_student"]), axis=1)
    np.testing.assert_allclose(student.grad.numpy(), wanted, rtol=1e-9)
    weights = confidence_weights(label_losses(logits, labels))
    np.testing.assert_allclose(weights.numpy(), numbers[f"out.camkd_official.{case}.weight"], rtol=1e-9)
