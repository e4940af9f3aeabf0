"""Losses that run networks on inputs of their own."""

from __future__ import annotations

from copy import deepcopy

import learning
import pytest
import torch
from learning import Labels
from torch.nn import functional as F

from kdcore import Batch, DistillationLoss, LossContext, Needs, Outputs
from kdcore.training.forward_passes import TermNetworks
from kdcore.training.participants import TermSpec
from kdcore.training.preflight import preflight
from kdcore.training.step import StageStep
from kdcore.training.teacher_cache import CachedOutputs


class Reversed(DistillationLoss):
    """Squared distance to the teachers' logits for inputs reversed in time; reads no outputs for the batch."""

    needs = Needs(teachers=1, forward_passes="all")

    def forward(self, ctx):
        own = ctx.forward(ctx.input().flip(-1)).logits
        theirs = [ctx.forward(ctx.input(name).flip(-1), of=name).logits for name in ctx.teachers]
        return torch.stack([F.mse_loss(own, each) for each in theirs]).mean()


class OwnOnly(DistillationLoss):
    """The student's logits should not change when its input is halved."""

    needs = Needs(forward_passes="student")

    def forward(self, ctx):
        return F.mse_loss(ctx.forward(ctx.input() / 2).logits, ctx.student.logits.detach())


TERMS = [TermSpec("labels", 1.0, Labels), TermSpec("reversed", 0.5, Reversed, teachers=("teacher",))]


@pytest.fixture
def table(tmp_path):
    return learning.table(tmp_path)


def contexts(made, table, cached=None):
    stage = learning.students()
    step = StageStep(made, stage, table, True, cached)
    step.progress = {"student": step.progress["student"]}
    rows = table.rows["train"][:4]
    return {term.spec.id: (term, context) for term, context in step.contexts(rows, rows)}, rows


def test_the_value_and_gradients_are_those_of_networks_run_by_hand(table):
    made = learning.distiller(table, TERMS)
    found, rows = contexts(made, table)
    term, context = found["reversed"]
    value = term.loss(context)
    student, teacher = made.participant("student").encoder, made.participant("teacher").encoder
    signals = table.batch(rows, ["teacher", "student"]).signals
    by_hand = F.mse_loss(student(signals["student"].flip(-1)), teacher(signals["teacher"].flip(-1)).detach())
    torch.testing.assert_close(value, by_hand)
    parameters = list(student.parameters())
    for one, other in zip(*(torch.autograd.grad(x, parameters) for x in (value, by_hand)), strict=True):
        torch.testing.assert_close(one, other)


def test_the_input_is_not_augmented(table):
    made = learning.distiller(table, TERMS)
    made.participant("student").train()
    found, rows = contexts(made, table)
    signal = table.batch(rows, ["student"]).signals["student"]
    assert not torch.equal(made.participant("student").input(signal), signal), "the noise of this fixture is missing"
    assert torch.equal(found["reversed"][1].input(), signal)
    assert made.participant("student").batch_transforms.training


def test_other_networks_run_in_evaluation_mode_and_get_no_gradient_but_pass_it_to_inputs(table):
    made = learning.distiller(table, TERMS)
    teacher = made.participant("teacher").train()  # as a teacher that trains in the same stage
    context = contexts(made, table)[0]["reversed"][1]
    before = learning.state_of(teacher)
    x = context.input("teacher").clone().requires_grad_()
    found = context.forward(x, of="teacher").logits
    assert teacher.training
    assert learning.same_state(teacher.state_dict(), before), "running statistics changed"
    (gradient,) = torch.autograd.grad(found.sum(), x, retain_graph=True)
    assert all(each is None for each in torch.autograd.grad(found.sum(), list(teacher.parameters()), allow_unused=True))
    again = x.detach().requires_grad_()
    teacher.eval()
    torch.testing.assert_close(torch.autograd.grad(teacher.encoder(again).sum(), again)[0], gradient)
    assert not context.forward(x.detach(), of="teacher").logits.requires_grad


def test_inputs_that_wait_for_a_gradient_need_a_network_that_gives_one(table):
    made = learning.distiller(table, TERMS)
    teacher = made.participant("teacher")
    teacher.encoder.forward = lambda x: torch.zeros(len(x), 2)  # a finished network, such as an ONNX file
    context = contexts(made, table)[0]["reversed"][1]
    with pytest.raises(ValueError, match="the network of 'teacher' does not compute"):
        context.forward(context.input("teacher").requires_grad_(), of="teacher")


def test_a_teacher_with_cached_outputs_can_be_run(table):
    made = learning.distiller(table, TERMS)
    live = contexts(made, table)[0]["reversed"]
    every = torch.arange(len(table.keys))
    with torch.no_grad():
        outputs = made.run_teachers(["teacher"], table.batch(every, ["teacher"]))["teacher"]
    cached = contexts(made, table, {"teacher": CachedOutputs(every, outputs.logits, outputs.features)})[0]["reversed"]
    torch.testing.assert_close(cached[0].loss(cached[1]), live[0].loss(live[1]))


def test_a_term_may_run_the_participants_that_it_reads_if_it_says_so(table):
    own = TermSpec("own", 1.0, OwnOnly)
    made = learning.distiller(table, [*TERMS, own], students=("student", "other"))
    found = contexts(made, table)[0]
    with pytest.raises(ValueError, match=r"cannot run 'other', only 'student', 'teacher'"):
        found["reversed"][1].input("other")
    with pytest.raises(ValueError, match=r"cannot run 'teacher', only 'student'; declare Needs\(forward_passes='all'\)"):
        found["own"][1].forward(torch.zeros(1), of="teacher")
    with pytest.raises(ValueError, match=r"declare Needs\(forward_passes=...\)"):
        found["labels"][1].input()


def test_a_term_whose_gradient_comes_from_its_own_passes_only_passes_the_checks_and_trains(table):
    made = learning.distiller(table, TERMS[1:])
    stage = learning.students(epochs=3)
    found = preflight(made, [stage], table, 4, False)
    assert [check.gradient > 0 for check in found.terms] == [True]
    assert [check.reads_logits for check in found.terms] == [True]
    assert found.answerless == ()
    before = learning.state_of(made.participant("student"))
    _, recorded = learning.fit(made, table, [stage])
    assert not learning.same_state(made.participant("student").state_dict(), before)
    assert "train/student/reversed" in recorded
    assert not any("vanished" in key for key in recorded), "its gradient was sought at outputs that it does not read"


def test_outputs_are_restricted_to_the_classes_that_all_know(table):
    made = learning.distiller(table, TERMS)
    batch = Batch(torch.arange(4), table.batch(table.rows["train"][:4], ["student"]).signals, None)
    whole = LossContext(Outputs(torch.zeros(4, 2)), {}, batch, networks=TermNetworks(made, "student"))
    part = whole.of_classes(torch.tensor([1]))
    assert torch.equal(part.forward(part.input()).logits, whole.forward(whole.input()).logits[:, 1:])


def test_selected_samples_have_their_own_inputs(table):
    made = learning.distiller(table, TERMS)
    context = contexts(made, table)[0]["reversed"][1]
    index = torch.tensor([2, 0])
    assert torch.equal(context.select(index).input("teacher"), context.input("teacher")[index])


class Adversarial(DistillationLoss):
    """Squared change of the logits in the direction that changes them most, which it finds by a gradient."""

    needs = Needs(forward_passes="student")

    def forward(self, ctx):
        x = ctx.input()
        clean = ctx.forward(x).logits.detach()
        direction = torch.randn_like(x).requires_grad_()
        (gradient,) = torch.autograd.grad(F.mse_loss(ctx.forward(x + 0.1 * direction).logits, clean), direction)
        return F.mse_loss(ctx.forward(x + F.normalize(gradient.flatten(1)).view_as(x)).logits, clean)


def test_a_loss_may_differentiate_with_respect_to_its_inputs(table):
    made = learning.distiller(table, [TermSpec("labels", 1.0, Labels), TermSpec("adversarial", 1.0, Adversarial)])
    found = preflight(made, [learning.students()], table, 4, withheld=False)
    assert found.terms[-1].gradient > 0


def after_a_step(ctx, x, y, rate=0.1):
    """A student's cross-entropy after a step of gradient descent towards the learner's probabilities."""
    before = ctx.parameters("student")
    soft = ctx.forward(x).logits.softmax(1)
    imitation = -(soft * ctx.forward(x, of="student", parameters=before).logits.log_softmax(1)).sum(1).mean()
    gradients = torch.autograd.grad(imitation, list(before.values()), create_graph=True)
    after = {name: each - rate * gradient for (name, each), gradient in zip(before.items(), gradients, strict=True)}
    return F.cross_entropy(ctx.forward(x, of="student", parameters=after).logits, y)


def test_a_teacher_may_learn_from_the_student_after_a_step(table):
    made = learning.distiller(table, TERMS).double().eval()
    teacher, student = made.participant("teacher").encoder, made.participant("student").encoder
    given = TermNetworks(made, "teacher", ["student"])
    x = {name: table.batch(table.rows["train"][:4], [name]).signals[name].double() for name in ("teacher", "student")}
    y = torch.tensor([0, 1, 1, 0])

    class Inputs(TermNetworks):
        def forward(self, name, _, parameters=None):
            return given.forward(name, x[name or "teacher"], parameters)

    ctx = LossContext(
        Outputs(torch.zeros(4, 2)), {}, Batch(torch.arange(4), {}, None), networks=Inputs(made, "teacher", ["student"])
    )
    value = after_a_step(ctx, None, y)
    weights = dict(teacher.named_parameters())
    gradients = dict(zip(weights, torch.autograd.grad(value, list(weights.values()), allow_unused=True), strict=True))
    state = learning.state_of(student)

    def by_hand():
        copy = deepcopy(student)
        optimizer = torch.optim.SGD(copy.parameters(), lr=0.1)
        with torch.no_grad():
            soft = teacher(x["teacher"]).softmax(1)
        F.cross_entropy(copy(x["student"]), soft).backward()
        optimizer.step()
        with torch.no_grad():
            return float(F.cross_entropy(copy(x["student"]), y))

    assert float(value.detach()) == pytest.approx(by_hand(), rel=1e-12)
    assert learning.same_state(student.state_dict(), state)
    for name, weight in weights.items():
        at = int(gradients[name].abs().argmax())
        flat, sides = weight.data.view(-1), []
        for shift in (1e-5, -1e-5):
            flat[at] += shift
            sides.append(by_hand())
            flat[at] -= shift
        assert float(gradients[name].view(-1)[at]) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-4, abs=1e-9), name
    assert max(float(each.abs().max()) for each in gradients.values()) > 1e-6


def test_the_learner_may_be_run_with_other_parameters(table):
    made = learning.distiller(table, TERMS)
    context = contexts(made, table)[0]["reversed"][1]
    own = context.parameters()
    assert all(mine is each for mine, each in zip(own.values(), made.participant("student").encoder.parameters(), strict=True))
    last = list(own)[-1]
    shifted = context.forward(context.input(), parameters={last: own[last] + 1}).logits
    torch.testing.assert_close(shifted, context.forward(context.input()).logits + 1)
    teacher = made.participant("teacher")
    before = learning.state_of(teacher)
    for copy in context.parameters("teacher").values():
        copy.data.fill_(7)
    assert learning.same_state(teacher.state_dict(), before)


@pytest.mark.parametrize("of", ["", "teacher"])
def test_parameters_that_a_network_lacks_are_refused(table, of):
    context = contexts(learning.distiller(table, TERMS), table)[0]["reversed"][1]
    name, value = list(context.parameters(of).items())[-1]
    with pytest.raises(
        ValueError, match=rf"the network of '{of or 'student'}' has no parameter '{name}s' \(did you mean '{name}'"
    ):
        context.forward(context.input(of), of, {name + "s": value})
    with pytest.raises(
        ValueError, match=rf"the parameter '{name}' of the network of '{of or 'student'}' has the shape \(2,\), not \(3,\)"
    ):
        context.forward(context.input(of), of, {name: torch.zeros(3)})
