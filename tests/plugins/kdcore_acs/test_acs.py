"""ACS against its equations, case by case and as a whole."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcore import Batch, Example, LossContext, Outputs
from kdcore_acs.acs import AdaptiveConfidence, AdaptiveConfidenceSemantic, teacher_weights

GATES = ("none", "correct", "correct_renorm", "loss_le_kd")
GOLDEN_NAME = {"confidence": "camkd", "select": "select"}
ROW = {"both_ok_T0": 0, "both_ok_T1": 1, "only_T0": 2, "only_T1": 3, "both_wrong": 4}


@pytest.fixture(scope="module")
def numbers(golden):
    return {key: torch.from_numpy(value) if value.ndim else value for key, value in golden("g_pskd_acs").items()}


def context(student, teachers, labels, feature=None, teacher_features=None):
    teacher_features = teacher_features if teacher_features is not None else [None] * len(teachers)
    return LossContext(
        Outputs(student, {} if feature is None else {"fc0": feature}),
        {
            f"teacher{k}": Outputs(logits, {} if other is None else {"fc0": other})
            for k, (logits, other) in enumerate(zip(teachers, teacher_features, strict=True))
        },
        Batch(torch.arange(len(student)), {}, labels),
    )


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("weights", GOLDEN_NAME)
def test_weights_and_samples_that_follow_the_label(numbers, weights, gate):
    found, lost = teacher_weights(
        numbers["in.teacher_logits"], numbers["in.student_logits"], numbers["in.labels"], weights, gate
    )
    tag = f"{GOLDEN_NAME[weights]}.{gate}"
    np.testing.assert_allclose(found, numbers[f"mid.weights.{tag}"], rtol=1e-9, atol=1e-15)
    np.testing.assert_array_equal(lost, numbers[f"mid.fallback.{tag}"])


@pytest.mark.parametrize("case", ROW)
@pytest.mark.parametrize(("weights", "gate"), [("confidence", "correct_renorm"), ("select", "correct")])
def test_the_four_cases(numbers, case, weights, gate):
    row = slice(ROW[case], ROW[case] + 1)
    student = numbers["in.student_logits"][row].clone().requires_grad_()
    ctx = context(
        student,
        list(numbers["in.teacher_logits"][:, row]),
        numbers["in.labels"][row],
        numbers["in.student_feat"][row],
        list(numbers["in.teacher_feat"][:, row]),
    )
    alpha, beta, gamma, temperature = numbers["in.alpha_beta_gamma_T"].tolist()
    parts = {"alpha": alpha, "beta": beta, "gamma": gamma, "temperature": temperature, "include_ce": True}
    loss = AdaptiveConfidenceSemantic(weights=weights, gate=gate, **parts)(ctx)
    loss.backward()
    tag = f"case.{case}.{GOLDEN_NAME[weights]}.{gate}"
    np.testing.assert_allclose(loss.item(), numbers[f"{tag}.L"], rtol=1e-9)
    np.testing.assert_allclose(student.grad, numbers[f"{tag}.grad"], rtol=1e-9, atol=1e-15)
    alone = AdaptiveConfidence(weights=weights, gate=gate)(ctx)
    np.testing.assert_allclose(alone.item(), numbers[f"{tag}.LMK"], rtol=1e-9)


def test_parts_of_the_whole_batch(numbers):
    ctx = context(
        numbers["in.student_logits"],
        list(numbers["in.teacher_logits"]),
        numbers["in.labels"],
        numbers["in.student_feat"],
        list(numbers["in.teacher_feat"]),
    )

    def part(**options):
        return AdaptiveConfidenceSemantic(**({"alpha": 0, "beta": 0, "gamma": 0, "include_ce": False} | options))(ctx).item()

    np.testing.assert_allclose(part(alpha=1), numbers["mid.L_K.T2"], rtol=1e-9)
    np.testing.assert_allclose(part(alpha=1, squared=False), numbers["mid.L_K.noT2"], rtol=1e-9)
    np.testing.assert_allclose(part(gamma=1), numbers["mid.L_S.mean"], rtol=1e-9)
    np.testing.assert_allclose(part(include_ce=True), numbers["mid.L_C"], rtol=1e-9)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("weights", GOLDEN_NAME)
def test_gradient_by_finite_differences(weights, gate):
    torch.manual_seed(0)
    teachers, labels = torch.randn(3, 6, 4, dtype=torch.float64), torch.randint(0, 4, (6,))
    loss = AdaptiveConfidenceSemantic(gamma=0, weights=weights, gate=gate)
    student = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: loss(context(z, list(teachers), labels)), (student,))


@given(
    st.integers(1, 4), st.integers(1, 5), st.integers(0, 10**6), st.sampled_from(GATES), st.sampled_from(sorted(GOLDEN_NAME))
)
@settings(max_examples=60, deadline=None)
def test_weights_are_shares(teachers, batch, seed, gate, weights):
    torch.manual_seed(seed)
    answers, student = 3 * torch.randn(teachers, batch, 3, dtype=torch.float64), torch.randn(batch, 3, dtype=torch.float64)
    labels = torch.randint(0, 3, (batch,))
    found, lost = teacher_weights(answers, student, labels, weights, gate)
    totals = found.sum(dim=0)
    assert (found >= 0).all()
    assert (totals <= 1 + 1e-12).all()
    if gate == "none":
        torch.testing.assert_close(totals, torch.ones_like(totals))
    if gate == "correct_renorm" or (gate == "correct" and weights == "select"):
        torch.testing.assert_close(totals, (~lost).double())
    if gate.startswith("correct"):
        assert (found[answers.argmax(dim=2) != labels] == 0).all()


@given(st.integers(0, 10**6), st.sampled_from(GATES), st.sampled_from(sorted(GOLDEN_NAME)))
@settings(max_examples=30, deadline=None)
def test_the_order_of_samples_and_teachers_does_not_matter(seed, gate, weights):
    torch.manual_seed(seed)
    teachers, student = torch.randn(3, 7, 4, dtype=torch.float64), torch.randn(7, 4, dtype=torch.float64)
    labels, order = torch.randint(0, 4, (7,)), torch.randperm(7)
    loss = AdaptiveConfidenceSemantic(gamma=0, weights=weights, gate=gate)
    value = loss(context(student, list(teachers), labels))
    torch.testing.assert_close(loss(context(student[order], list(teachers[:, order].flip(0)), labels[order])), value)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("teachers", [1, 2])
def test_finite_for_extreme_logits_and_one_sample(gate, teachers):
    student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    answers = [torch.tensor([[-1e4, 1e4, 0.0]]), torch.tensor([[0.0, -1e4, 1e4]])][:teachers]
    loss = AdaptiveConfidenceSemantic(gamma=0, gate=gate)(context(student, answers, torch.tensor([1])))
    loss.backward()
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad.abs().sum() > 0


def test_teachers_get_no_gradient_through_their_weights():
    teachers = torch.randn(2, 4, 3, requires_grad=True)
    weights = AdaptiveConfidence()
    student = torch.randn(4, 3, requires_grad=True)
    value = weights(context(student, [each.detach() for each in teachers], torch.tensor([0, 1, 2, 0])))
    value.backward()
    assert teachers.grad is None
    assert student.grad is not None
    assert student.grad.abs().sum() > 0


def test_taps_are_needed_only_for_semantics():
    assert AdaptiveConfidenceSemantic(gamma=0.0).needs.student_taps == ()
    assert AdaptiveConfidenceSemantic(student_tap="h", teacher_tap="g").needs.teacher_taps == ("g",)


def test_embeddings_of_unlike_width_are_refused():
    example = Example(
        Outputs(torch.zeros(2, 3), {"fc0": torch.zeros(2, 8)}),
        {"skeleton": Outputs(torch.zeros(2, 3), {"fc0": torch.zeros(2, 9)})},
    )
    with pytest.raises(ValueError, match=r"\(8,\), skeleton's \(9,\)"):
        AdaptiveConfidenceSemantic().setup(example)
