"""A learner that uses a teacher's classifier."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import learning
import numpy as np
import pytest
import torch
from learning import Imitate, Labels, fit
from runs import Home, encoder, results_of, tiny_recipe
from safetensors.torch import load_file
from torch import nn

from kdcore import Builder, LossContext, Participant, RecipeError, load_recipe, load_student
from kdcore.contracts.training import MovingAverage
from kdcore.runs.run import dry_run
from kdcore.training.classifiers import copy_classifiers, with_classifiers
from kdcore.training.participants import Average, TermSpec

KILLED = -signal.SIGKILL


@pytest.fixture
def table(tmp_path):
    return learning.table(tmp_path)


def reusing(table, terms=None):
    """A teacher and a student with its classifier, as an assembly prepares them."""
    made = learning.distiller(table, terms)
    batch = table.batch(table.rows["train"], made.networks)
    for name in made.networks:
        made.participant(name).find_classifier(batch.signals[name])
    made.reused["student"] = "teacher"
    made.participant("student").last_layer[0].requires_grad_(False)
    return made


def test_the_last_layer_is_found_by_what_it_gives(table):
    made = learning.distiller(table)
    teacher = made.participant("teacher")
    x = table.batch(table.rows["train"], ["teacher"]).signals["teacher"]
    assert teacher.classifier is None
    before = teacher(x).features.keys()
    layer = teacher.find_classifier(x)
    assert layer is teacher.encoder[6]
    assert not any(module._forward_hooks for module in teacher.encoder.modules() if isinstance(module, nn.Linear))
    found = teacher(x)
    assert found.features.keys() == before
    torch.testing.assert_close(found.features["features"] @ teacher.classifier.weight.T + teacher.classifier.bias, found.logits)


def test_the_classifiers_of_others_have_no_graph(table):
    made = learning.distiller(table)
    batch = table.batch(table.rows["train"], made.networks)
    for name in made.networks:
        made.participant(name).requires_grad_().find_classifier(batch.signals[name])
    outputs = {name: made.participant(name)(batch.signals[name]) for name in made.networks}
    context = LossContext(outputs["student"], {"teacher": outputs["teacher"]}, batch, {"teacher": outputs["teacher"]})
    found = with_classifiers(made, "student", context)
    assert found.student.classifier.weight.requires_grad
    for each in (found.teachers["teacher"], found.peers["teacher"]):
        assert torch.equal(each.classifier.weight, made.participant("teacher").classifier.weight)
        assert not each.classifier.weight.requires_grad
        assert not each.classifier.bias.requires_grad


@pytest.mark.parametrize("end", [nn.LogSoftmax(dim=1), nn.Flatten()])
def test_a_network_that_changes_the_layers_outputs_has_none(end):
    linear = nn.Sequential(nn.Flatten(), nn.Linear(6, 3), end)
    found = Participant("net", linear).find_classifier(torch.randn(2, 2, 3))
    assert (found is None) == isinstance(end, nn.LogSoftmax) or found is linear[1]


def test_a_layer_without_bias_has_a_bias_of_zeros():
    member = Participant("net", nn.Sequential(nn.Flatten(), nn.Linear(6, 3, bias=False)))
    member.find_classifier(torch.randn(2, 2, 3))
    assert torch.equal(member.classifier.bias, torch.zeros(3))


def test_it_has_the_trained_teachers_classifier_and_keeps_it(table):
    made = reusing(table)
    start = learning.state_of(made)
    stages = [learning.teachers(), learning.students()]
    fit(made, table, stages)
    teacher, student = made.participant("teacher").encoder, made.participant("student").encoder
    assert not torch.equal(teacher[6].weight, start["teachers.teacher.encoder.6.weight"])
    assert torch.equal(student[6].weight, teacher[6].weight)
    assert torch.equal(student[6].bias, teacher[6].bias)
    assert not torch.equal(student[0].weight, start["students.student.encoder.0.weight"])


def test_training_is_that_of_a_student_that_starts_with_the_teachers_frozen_classifier(table):
    """The same two stages, with the classifier put into the student by hand between them."""
    made, by_hand = reusing(table), learning.distiller(table)
    fit(made, table, [learning.teachers(), learning.students()])
    fit(by_hand, table, [learning.teachers()])
    own, theirs = (by_hand.participant(name).encoder[6] for name in ("student", "teacher"))
    own.load_state_dict(theirs.state_dict())
    own.requires_grad_(False)
    fit(by_hand, table, [learning.students()])
    assert learning.same_state(made.participant("student").state_dict(), by_hand.participant("student").state_dict())


def test_averages_of_it_have_that_classifier_too(table):
    made = reusing(table, [TermSpec("labels", 1.0, Labels), TermSpec("imitate", 0.5, Imitate, teachers=("teacher",))])
    average = learning.distiller(table).participant("student")
    x = table.batch(table.rows["train"], ["student"]).signals["student"]
    average.find_classifier(x)
    made.teachers["average"] = made._members["average"] = average
    made.averages["average"] = Average("student", MovingAverage(0.999, warmup=False))
    copy_classifiers(made, ["student"])
    assert torch.equal(average.encoder[6].weight, made.participant("teacher").encoder[6].weight)


# Runs


def sections(**student):
    """Sections of the tiny recipe in which the student uses the teacher's classifier."""
    recipe = tiny_recipe(Path("unused"), "")
    own = {"encoder": encoder(projector=8), "taps": {"features": "projector"}, "classifier_from": "skeleton"}
    return {
        "teachers": {"skeleton": recipe["teachers"]["skeleton"] | {"taps": {"features": "blocks.1"}}},
        "student": recipe["student"] | own | student,
        "losses": ["cross-entropy", {"name": "fitnet", "regressor": "never"}],
        "seeds": [0],
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory, database):
    home = Home(tmp_path_factory.mktemp("reused"), database).write(**sections())
    assert home.run() == 0, home.said()
    return home


def test_the_saved_student_has_the_teachers_classifier_and_its_baseline_one_of_its_own(home):
    run = home.runs[0]
    teacher = load_file(run / "teachers/seed-0/skeleton.safetensors")
    student = load_file(run / "students/seed-0/student/weights.safetensors")
    baseline = load_file(run / "baseline/seed-0/student.safetensors")
    for name in ("encoder.fc.weight", "encoder.fc.bias"):
        assert torch.equal(student[name], teacher[name])
        assert not torch.equal(student[name], baseline[name])


def test_a_loaded_student_answers_through_projector_and_classifier_as_it_did_in_the_test(home):
    run, recipe = home.runs[0], load_recipe(home.recipe)
    student = load_student(run / "students/seed-0/student")
    theirs = load_file(run / "teachers/seed-0/skeleton.safetensors")
    tested = np.load(run / "results/seed-0-distilled.npz")
    dataset = Builder(recipe).dataset()
    samples = {str(each.key): each for each in dataset.samples()}
    recordings = [dataset.read(samples[key], "accelerometer") for key in json.loads(str(tested["head"]))["keys"]]
    x, net = student.preprocess(recordings), student.model.encoder
    with torch.no_grad():
        projected = net.projector(net.blocks[1](net.blocks[0](x)))
        logits = projected.mean(dim=2) @ theirs["encoder.fc.weight"].T + theirs["encoder.fc.bias"]
    np.testing.assert_allclose(logits.softmax(dim=1).numpy(), tested["probabilities.student"], atol=1e-5)


@pytest.mark.slow
def test_a_killed_run_ends_the_same(home, new_home):
    killed, step = new_home(**sections()), "torch.optim:AdamW.step"
    assert killed.run(die=(step, 8)) == KILLED, killed.said()  # in the student's first epoch
    assert killed.resume(die=(step, 2)) == KILLED, killed.said()
    assert killed.resume() == 0, killed.said()
    ours, theirs = results_of(killed.runs[0]), results_of(home.runs[0])
    assert [name for name in theirs if ours[name] != theirs[name]] == []


def test_a_student_with_another_width_is_refused(new_home):
    home = new_home(**sections(encoder=encoder(projector=6)))
    said = "the classifier of skeleton reads 8 features, but that of student 6 .add a layer with 8 outputs before it, such as"
    with pytest.raises(RecipeError, match=rf"recipe.yaml:\d+: student.classifier_from: {said}"):
        dry_run(home.recipe)
