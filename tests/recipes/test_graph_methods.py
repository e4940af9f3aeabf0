"""Recipes whose papers say who learns from whom, against independent computations in plain PyTorch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from by_hand import (
    LENGTH,
    SEED,
    SKELETON,
    TINY,
    ByHand,
    Trial,
    Weights,
    cross_entropy,
    divergence,
    forward,
    network,
    rows_of,
    soft_target,
    step_of,
    weights_of,
)
from runs import Home
from torch import Tensor

from kdcore.recipe.plan import BASELINE, DISTILLED
from kdcore.training.engine import Engine
from kdcore.training.participants import Distiller

# Teacher assistant


TAKD = [
    *network("teachers.teacher", SKELETON, 8),
    *network("teachers.assistant", width=6),
    *network("student"),
]


@pytest.mark.parametrize(("learner", "teacher"), [("assistant", "teacher"), ("student", "assistant")])
def test_takd_trains_each_network_from_the_one_before_it(trial, learner, teacher):
    """Loss values and weights are those of a loop in plain PyTorch on the same batches from the same initial weights."""
    made = trial("takd", *TAKD)
    distiller = made.distiller()
    hand, batches = ByHand(weights_of(distiller.participant(learner))), rows_of(distiller, learner)
    _, recorded = made.fit(distiller, made.stages())
    assert len(batches) == 3 * (len(made.table.rows["train"]) // 4)
    source = weights_of(distiller.participant(teacher))

    def teaches(rows):
        with torch.no_grad():
            return forward(source, made.input(teacher, rows), learning=False)

    values = hand.train(batches, lambda rows: made.input(learner, rows), lambda rows: made.table.labels[rows], teaches)
    for index, term in enumerate(("cross-entropy", "soft-target")):
        found = list(recorded[f"train_step/{learner}/{term}"].values())
        assert found == pytest.approx(
            [each[index] for each in values], rel=1e-4, abs=1e-5
        )  # the divergence is multiplied by 16
    hand.assert_like(distiller.participant(learner))


def test_takd_hides_the_large_teacher_from_the_student(trial):
    made = trial("takd", *TAKD)
    *first, last = made.stages()
    assert last.learners == ("student",)
    assert last.sources == ("assistant",)

    def student(perturbed: str | None) -> Weights:
        distiller = made.distiller()
        made.fit(distiller, first)
        if perturbed:
            for parameter in distiller.participant(perturbed).parameters():
                parameter.data.add_(torch.randn_like(parameter))
        made.fit(distiller, [last])
        return weights_of(distiller.participant("student"))

    expected = student(None)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in student("teacher").items())
    assert not torch.equal(student("assistant")["fc.weight"], expected["fc.weight"])


# Mean Teacher


NOISE = 0.2
MEAN_TEACHER = [
    *network("student", f"[{{name: resample, length: {LENGTH}}}, normalise, {{name: jitter, std: {NOISE}}}]"),
    "data.labels={share: 0.4}",
    "teachers.average.momentum=0.6",
    "losses.consistency.weight=3",
]


@dataclass
class MeanTeacher:
    """A training of the recipe, with everything that passed through its networks."""

    made: Trial
    distiller: Distiller
    engine: Engine
    recorded: dict[str, dict[int, float]]
    rows: list[Tensor]
    inputs: dict[str, list[Tensor]]
    logits: list[Tensor]
    states: list[Weights]


@pytest.fixture
def mean_teacher(trial):
    made = trial("mean-teacher", *MEAN_TEACHER)
    distiller = made.distiller()
    student, average = distiller.participant("student"), distiller.participant("average")
    inputs: dict[str, list[Tensor]] = {"student": [], "average": []}
    logits, states = [], []
    for name, member in (("student", student), ("average", average)):
        member.encoder.register_forward_pre_hook(lambda _, args, name=name: inputs[name].append(args[0].detach().clone()))
    student.encoder.register_forward_hook(lambda _, args, output: logits.append(output.detach().clone()))
    rows = rows_of(distiller, "student", "consistency")
    distiller.losses("student")["consistency"].register_forward_pre_hook(lambda *_: states.append(weights_of(student)))
    engine, recorded = made.fit(distiller, made.stages())
    states.append(weights_of(student))
    return MeanTeacher(made, distiller, engine, recorded, rows, inputs, logits, states)


def test_mean_teachers_average_is_its_closed_form(mean_teacher):
    r"""After N steps it is :math:`\sum_n (1 - d_n) \prod_{m > n} d_m w_n` with :math:`d_n = \min(0.6, n / (n + 1))`."""
    after = mean_teacher.states[1:]
    decays = [min(0.6, n / (n + 1)) for n in range(len(after))]
    shares = [(1 - decay) * math.prod(decays[n + 1 :]) for n, decay in enumerate(decays)]
    assert sum(shares) == pytest.approx(1)
    found = weights_of(mean_teacher.distiller.participant("average"))
    for name in ("blocks.0.0.weight", "blocks.1.1.bias", "fc.weight", "fc.bias"):
        expected = sum(share * state[name].double() for share, state in zip(shares, after, strict=True))
        torch.testing.assert_close(found[name].double(), expected, rtol=1e-5, atol=1e-6)
    for name in ("blocks.0.1.running_mean", "blocks.1.1.running_var"):  # copied, as torch.optim.swa_utils does
        assert torch.equal(found[name], after[-1][name])


def test_mean_teachers_average_is_never_optimised(mean_teacher):
    average = list(mean_teacher.distiller.participant("average").parameters())
    assert set(mean_teacher.engine.learners) == {"student"}
    optimizer = mean_teacher.engine.learners["student"].optimizer
    held = {id(each) for group in optimizer.param_groups for each in group["params"]}
    assert not held & {id(each) for each in average}
    assert all(each.grad is None for each in average)


def test_mean_teacher_compares_two_augmentations_of_the_same_samples(mean_teacher):
    pairs = list(zip(mean_teacher.rows, mean_teacher.inputs["student"], mean_teacher.inputs["average"], strict=True))
    mine, theirs = [], []
    for rows, student, average in pairs:
        plain = mean_teacher.made.input("student", rows)
        assert torch.equal(plain, mean_teacher.made.input("average", rows))
        mine.append((student - plain).flatten())
        theirs.append((average - plain).flatten())
    noises = torch.stack([torch.cat(mine), torch.cat(theirs)])
    assert noises.std(1).tolist() == pytest.approx([NOISE, NOISE], rel=0.1)
    assert abs(float(torch.corrcoef(noises)[0, 1])) < 5 / math.sqrt(noises.shape[1])


def test_mean_teachers_supervised_term_is_the_mean_over_labelled_rows(mean_teacher):
    taught, expected = mean_teacher.made.table.train_labels, []
    for rows, logits in zip(mean_teacher.rows, mean_teacher.logits, strict=True):
        known = taught[rows] >= 0
        if bool(known.any()):  # other steps have no value
            expected.append(float(cross_entropy(logits[known], taught[rows][known])))
    assert len(expected) < len(mean_teacher.rows)
    assert any(bool((taught[rows] < 0).any()) for rows in mean_teacher.rows)
    found = list(mean_teacher.recorded["train_step/student/cross-entropy"].values())
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


# Born-Again Networks


BORN_AGAIN = network("students.generation-1")


@pytest.mark.slow
def test_born_again_generations_are_rows_and_learn_from_frozen_outputs(trial, tmp_path, database, monkeypatch):
    from kdcore import run
    from kdcore.deploy.saved_student import WEIGHTS
    from kdcore.runs.artifacts import student_folder
    from kdcore.training.checkpoint import load_weights
    from kdcore_losses.soft_target import SoftTarget

    home = Home(tmp_path, database)
    for name, value in home.environment.items():
        monkeypatch.setenv(name, value)
    seen: list[tuple[str, Tensor, Tensor]] = []
    real = SoftTarget.forward

    def spied(self, ctx):
        seen.extend((name, ctx.batch.rows.clone(), each.logits.clone()) for name, each in ctx.teachers.items())
        return real(self, ctx)

    monkeypatch.setattr(SoftTarget, "forward", spied)
    tracking = f"tracking={{uri: 'sqlite:///{database}', experiment: born-again}}"
    result = run("methods/born-again", [*TINY, *BORN_AGAIN, f"seeds=[{SEED}]", tracking])
    roles = {(row.participant, row.role) for row in result.summary.rows}
    for generation in ("generation-1", "generation-2", "generation-3"):
        assert any(name == generation for name, _ in roles), roles
    made = trial("born-again", *BORN_AGAIN)
    steps = len(made.table.rows["train"]) // 4
    for teacher in ("generation-1", "generation-2"):
        saved = load_weights(student_folder(result.folder, SEED, teacher) / WEIGHTS)
        weights = {name.removeprefix("encoder."): tensor for name, tensor in saved.items() if name.startswith("encoder.")}
        given = [(rows, logits) for name, rows, logits in seen if name == teacher][-3 * steps :]  # after the preflight
        assert len(given) == 3 * steps
        for rows, logits in given:
            torch.testing.assert_close(logits, forward(weights, made.input(teacher, rows), False), rtol=1e-4, atol=1e-5)


def test_born_agains_baselines_are_the_first_generations_rule_with_seeds_of_their_own(trial):
    made = trial("born-again", *BORN_AGAIN)
    trained = {}
    for arm, name in ((DISTILLED, "generation-1"), (BASELINE, "generation-2"), (BASELINE, "generation-3")):
        distiller = made.distiller(arm)
        stages = [stage for stage in made.stages(arm) if stage.learners == (name,)]
        hand, batches = ByHand(weights_of(distiller.participant(name))), rows_of(distiller, name)
        start = hand.weights["fc.weight"].clone()
        made.fit(distiller, stages)
        hand.train(batches, lambda rows, name=name: made.input(name, rows), lambda rows: made.table.labels[rows])
        hand.assert_like(distiller.participant(name))
        trained[name] = (start, torch.cat(batches))
    for first, second in (("generation-1", "generation-2"), ("generation-2", "generation-3")):
        assert not torch.equal(trained[first][0], trained[second][0])
        assert not torch.equal(trained[first][1], trained[second][1])


# Deep Mutual Learning across modalities


MUTUAL = [*network("students.accelerometer"), *network("students.skeleton", SKELETON)]
STUDENTS = ("accelerometer", "gyroscope", "skeleton")


def mutual_objectives(logits: Mapping[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
    """Every student's objective from all logits; what it hears from others is a constant to it."""
    found: dict[str, Any] = {}
    for name in STUDENTS:
        temperature, weight = (4, 0.2) if name == "skeleton" else (1, 1)
        peers = [divergence(logits[name], logits[other].detach(), temperature) for other in STUDENTS if other != name]
        found[name] = cross_entropy(logits[name], labels) + weight * sum(peers) / 2
    return found


def test_mutual_learning_gives_each_student_its_own_loss_and_nobody_a_gradient_of_another(trial):
    made = trial("mutual-modalities", *MUTUAL)
    distiller = made.distiller()
    [stage] = made.stages()
    step, rows = step_of(made, distiller, stage)
    by_hand = {name: weights_of(distiller.participant(name)) for name in STUDENTS}
    total, values = step(rows, rows)
    learnt = {
        name: {key: weights[key].requires_grad_() for key in weights if key.endswith(("weight", "bias"))}
        for name, weights in by_hand.items()
    }
    logits = {name: forward(weights, made.input(name, rows), True) for name, weights in by_hand.items()}
    objectives = mutual_objectives(logits, made.table.labels[rows])
    found = dict(zip(step.names, map(float, values), strict=True))
    for name in STUDENTS:
        weight = 0.2 if name == "skeleton" else 1.0
        assert found[f"{name}/cross-entropy"] + weight * found[f"{name}/mutual"] == pytest.approx(
            float(objectives[name]), rel=1e-5
        )
    total.backward()
    for name in STUDENTS:
        gradients = torch.autograd.grad(objectives[name], list(learnt[name].values()), retain_graph=True)
        parameters = dict(distiller.participant(name).encoder.named_parameters())
        for key, gradient in zip(learnt[name], gradients, strict=True):
            torch.testing.assert_close(parameters[key].grad, gradient, rtol=1e-4, atol=1e-6)


def test_mutual_learnings_terms_have_no_graph_to_other_students(trial):
    made = trial("mutual-modalities", *MUTUAL)
    distiller = made.distiller()
    [stage] = made.stages()
    step, rows = step_of(made, distiller, stage)
    for term, context in step.contexts(rows, rows):
        others = [
            each for name in STUDENTS if name != term.learner for each in distiller.participant(name).encoder.parameters()
        ]
        gradients = torch.autograd.grad(term.loss(context), others, allow_unused=True, retain_graph=True)
        assert all(each is None for each in gradients)


# Two teachers


def test_weighted_teachers_gradients_add_up_by_their_weights(trial):
    overrides = [*network("teachers.skeleton", SKELETON, 8), *network("teachers.gyroscope"), *network("student")]
    made = trial("weighted-teachers", *overrides)
    distiller = made.distiller()
    *_, stage = made.stages()
    step, rows = step_of(made, distiller, stage)
    weights = weights_of(distiller.participant("student"))
    teachers = {name: weights_of(distiller.participant(name)) for name in ("skeleton", "gyroscope")}
    step(rows, rows)[0].backward()

    names = [name for name in weights if name.endswith(("weight", "bias"))]
    learnt = [weights[name].requires_grad_() for name in names]
    logits = forward(weights, made.input("student", rows), True)
    taught = {name: forward(each, made.input(name, rows), False) for name, each in teachers.items()}
    terms = [
        cross_entropy(logits, made.table.labels[rows]),
        soft_target(logits, taught["skeleton"], 4),
        soft_target(logits, taught["gyroscope"], 2),
    ]
    g0, g1, g2 = (torch.autograd.grad(term, learnt, retain_graph=True) for term in terms)
    parameters = dict(distiller.participant("student").encoder.named_parameters())
    for name, *each in zip(names, g0, g1, g2, strict=True):
        expected = each[0] + 0.7 * each[1] + 0.3 * each[2]
        torch.testing.assert_close(parameters[name].grad, expected, rtol=1e-4, atol=1e-6)
        assert float(each[1].norm()) > 0
