"""A learner that starts from the trained weights of another participant."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import learning
import numpy as np
import pytest
import torch
import yaml
from learning import Imitate, Labels, fit
from runs import Home, results_of, tiny_recipe
from safetensors.torch import load_file
from torch import nn

import kdcore
from kdcore import RecipeError, find_student, load_predictor, load_recipe, load_student
from kdcore.cli.runs import _computed_gain
from kdcore.contracts.training import MovingAverage
from kdcore.recipe.plan import make_plan
from kdcore.runs.evaluation import evaluate_run
from kdcore.runs.records import read_run
from kdcore.runs.run import dry_run
from kdcore.training.origins import copy_origins
from kdcore.training.participants import Average, TermSpec
from kdcore.training.preflight import preflight
from kdcore_datasets.synthetic.dataset import SyntheticMotion

KILLED = -signal.SIGKILL
TERMS = {"student": [TermSpec("imitate", 1.0, Imitate, teachers=("teacher",))], "other": [TermSpec("labels", 1.0, Labels)]}


@pytest.fixture
def table(tmp_path):
    return learning.table(tmp_path)


def pair(table, origin=True):
    """A student that imitates, and another one that learns from labels, from the first one's weights."""
    made = learning.distiller(table, TERMS, students=("student", "other"))
    if origin:
        made.origins["other"] = "student"
    return made


def stages(**training):
    return [learning.students(), learning.students(learners=("other",), taught=(), **training)]


def test_training_goes_on_from_the_origins_weights(table):
    """The same two stages, with the weights loaded by hand between them."""
    made, by_hand = pair(table), pair(table, origin=False)
    fit(made, table, stages())
    fit(by_hand, table, stages()[:1])
    by_hand.participant("other").encoder.load_state_dict(by_hand.participant("student").encoder.state_dict())
    fit(by_hand, table, stages()[1:])
    for name in ("student", "other"):
        assert learning.same_state(made.participant(name).state_dict(), by_hand.participant(name).state_dict())


def test_without_an_origin_it_would_be_another_network(table):
    made, alone = pair(table), pair(table, origin=False)
    fit(made, table, stages())
    fit(alone, table, stages())
    assert not learning.same_state(made.participant("other").state_dict(), alone.participant("other").state_dict())


def test_an_average_of_weights_begins_with_those_of_the_origin(table):
    """With a momentum near 1, the average of training stays where it begins."""
    made = pair(table)
    fit(made, table, stages(ema=MovingAverage(0.999999, warmup=False)))
    mine, origin = (dict(made.participant(name).encoder.named_parameters()) for name in ("other", "student"))
    for key, value in mine.items():
        torch.testing.assert_close(value, origin[key], rtol=0, atol=1e-5)


def test_it_starts_once_though_it_has_several_stages(table):
    first, second = learning.students(), learning.one(learning.Training(epochs=2), "other")
    made, by_hand = pair(table), pair(table, origin=False)
    fit(made, table, [first, second, second])
    fit(by_hand, table, [first])
    by_hand.participant("other").encoder.load_state_dict(by_hand.participant("student").encoder.state_dict())
    fit(by_hand, table, [second, second])
    assert learning.same_state(made.participant("other").state_dict(), by_hand.participant("other").state_dict())


def test_moving_averages_that_follow_it_start_there_too(table):
    made = pair(table)
    average = learning.distiller(table).participant("student")
    made.teachers["average"] = made._members["average"] = average
    made.averages["average"] = Average("other", MovingAverage(0.999, warmup=False))
    with torch.no_grad():
        made.participant("student").encoder[6].weight.fill_(3)
    copy_origins(made, ["other"])
    assert learning.same_state(average.encoder.state_dict(), made.participant("student").encoder.state_dict())


class OnlyWhileEvaluating(nn.Module):
    """Adds a bias in evaluation mode alone, so that training never reaches it, as with one that batch normalisation cancels."""

    def __init__(self, width: int):
        super().__init__()
        self.bias = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x if self.training else x + self.bias


def test_networks_whose_logits_no_term_reads_are_found(table):
    """The student imitates features; the other one learns from labels, though one of its parameters gets no gradient."""
    made = pair(table, origin=False)
    made.participant("other").encoder.insert(6, OnlyWhileEvaluating(4))
    found = preflight(made, [learning.teachers(), *stages()], table, 3, False)
    assert found.answerless == ("student",)
    assert {check.learner: check.reads_logits for check in found.terms} == {"teacher": True, "student": False, "other": True}


def test_predictions_of_an_origin_that_learned_them_count(table):
    """The other one imitates features only, but starts from a student with a trained classifier."""
    made = learning.distiller(
        table, dict(zip(("other", "student"), TERMS.values(), strict=True)), students=("student", "other")
    )
    made.origins["other"] = "student"
    found = preflight(made, [learning.students(taught=()), learning.students(learners=("other",))], table, 3, False)
    assert found.answerless == ()


# Runs


def copies_home(home: Home) -> Home:
    """A home with copies of the student: one with the same input, one whose input has no x axis."""
    recipe = tiny_recipe(home.database, "copies", seeds=[0], training={"epochs": 2, "ema": {"momentum": 0.5}})
    del recipe["schedule"]
    student = recipe["student"]
    copy = {"like": "student", "starts_from": "student", "freeze": ["*"]}
    recipe["teachers"] |= {
        "same": copy,
        "halved": copy | {"transforms": [*student["transforms"], {"name": "scale", "factor": 0.5}]},
    }
    home.folder.mkdir(exist_ok=True)
    home.recipe.write_text(yaml.safe_dump(recipe))
    return home


def test_copies_of_a_trained_network_are_evaluated_with_their_own_transforms(tmp_path, database):
    home = copies_home(Home(tmp_path / "home", database))
    assert home.run() == 0, home.said()
    (run,) = home.runs
    outcome = read_run(run).outcomes["distilled"][0]
    found = outcome.probabilities
    np.testing.assert_array_equal(found["same"], found["student"])
    student = load_student(run / "students/seed-0/student")
    keys, expected = list(outcome.keys), {}
    dataset = SyntheticMotion(subjects=3, trials=3, actions=["wave", "punch", "sit down"])
    for sample in dataset.samples():
        if str(sample.key) in keys:
            x = student.preprocess({"accelerometer": dataset.read(sample, "accelerometer")})
            with torch.no_grad():
                expected[str(sample.key)] = student(x * 0.5).softmax(1)[0].numpy()
    np.testing.assert_allclose(found["halved"], np.stack([expected[key] for key in keys]), rtol=1e-4, atol=1e-6)
    assert np.abs(found["halved"] - found["same"]).max() > 1e-3
    assert "teachers (mean)" not in outcome.evaluations()
    assert outcome.evaluations().keys() >= {"same", "halved", "student", "skeleton"}
    assert outcome.joint_teachers == ["skeleton"]
    assert re.search(r"halved +copy +\d", (home.folder / "stdout.txt").read_text())
    assert "no student learns from" not in said(home)
    assert "halved: the trained network of student, evaluated with its own transforms" in said(home)
    stages = make_plan(load_recipe(home.recipe)).stages["distilled"]
    assert {source for stage in stages for source in stage.sources} == {"skeleton"}


def sections(**tuned):
    """Sections of the tiny recipe in which one student learns features without labels, and another starts from it."""
    recipe = tiny_recipe(Path("unused"), "")
    taps = {"taps": {"features": "blocks.1"}}
    return {
        "teachers": {"skeleton": recipe["teachers"]["skeleton"] | taps},
        "student": None,
        "students": {
            "pretrained": recipe["student"] | taps | {"losses": ["fitnet"]},
            "tuned": {"like": "pretrained", "starts_from": "pretrained", "learns_from": [], "losses": ["cross-entropy"]}
            | tuned,
        },
        "losses": None,
        "schedule": None,
        "training": {"epochs": 2, "optimizer": {"name": "adamw", "lr": 0.001}},
        "seeds": [0],
    }


def origin_home(home: Home, **tuned) -> Home:
    """A home with the tiny recipe, without the keys that these sections replace."""
    home.write(**sections(**tuned))
    recipe = {key: value for key, value in yaml.safe_load(home.recipe.read_text()).items() if value is not None}
    home.recipe.write_text(yaml.safe_dump(recipe))
    return home


def said(home: Home) -> str:
    return " ".join(home.said().split())


@pytest.fixture(scope="module")
def home(tmp_path_factory, database):
    home = origin_home(Home(tmp_path_factory.mktemp("origin"), database))
    assert home.run() == 0, home.said()
    return home


def test_a_network_whose_classes_nothing_trains_is_not_evaluated(home):
    run = home.runs[0]
    found = results_of(run)
    assert any("tuned" in name for name in found)
    assert not any("pretrained" in name for name in found if "results" in name)
    assert "pretrained: no term trains the layers that its predictions come from, so it is not evaluated" in said(home)
    assert [path.name for path in (run / "students/seed-0").iterdir()] == ["tuned"]
    assert (run / "teachers/seed-0/pretrained.safetensors").is_file()


def test_its_baseline_starts_afresh_and_is_trained_for_longer(home):
    assert "without distillation it starts from its own and is trained for 2 epochs more" in said(home)
    run = home.runs[0]
    pretrained = load_file(run / "teachers/seed-0/pretrained.safetensors")
    tuned = load_file(run / "students/seed-0/tuned/weights.safetensors")
    baseline = load_file(run / "baseline/seed-0/tuned.safetensors")
    key = "encoder.blocks.0.0.weight"
    near, far = (torch.dist(each[key], pretrained[key]) for each in (tuned, baseline))
    assert 0 < near < far / 3


def test_the_list_of_runs_shows_the_gain_of_the_student_that_has_one(home):
    assert re.fullmatch(r"[+-]\d+\.\d \(.*\)", _computed_gain(home.runs[0]))


@pytest.mark.slow
def test_a_killed_run_ends_the_same(home, tmp_path, database):
    killed, step = origin_home(Home(tmp_path / "killed", database)), "torch.optim:AdamW.step"
    assert killed.run(die=(step, 18)) == KILLED, killed.said()  # in the first epoch of the second student
    assert killed.resume(die=(step, 2)) == KILLED, killed.said()
    assert killed.resume() == 0, killed.said()
    ours, theirs = results_of(killed.runs[0]), results_of(home.runs[0])
    assert [name for name in theirs if ours[name] != theirs[name]] == []


@pytest.mark.parametrize(
    ("tuned", "message"),
    [
        (
            {"encoder": {"name": "cnn1d", "width": 6, "depth": 2}},
            r"students\.tuned\.starts_from: 'blocks\.0\.0\.weight' of 'tuned' has the shape \(6, 3, \d\), and that of "
            r"'pretrained' has the shape \(4, 3, \d\)",
        ),
        (
            {"encoder": {"name": "cnn1d", "width": 4, "depth": 1}},
            r"'blocks\.1\.\S+' of 'tuned' does not exist, and that of 'pretrained' has the shape",
        ),
    ],
    ids=["wider", "shallower"],
)
def test_another_network_is_refused(tmp_path, database, tuned, message):
    home = origin_home(Home(tmp_path / "other", database), taps={"features": "blocks.0"}, **tuned)
    with pytest.raises(RecipeError, match=message):
        dry_run(home.recipe)


def test_an_epoch_is_not_chosen_by_predictions_that_mean_nothing(tmp_path, database):
    home = origin_home(Home(tmp_path / "best", database))
    with pytest.raises(
        RecipeError, match="'pretrained' cannot select the best epoch: no term trains the layers that its predictions"
    ):
        dry_run(home.recipe, ["students.pretrained.training={epochs: 2, select: best}"])


def test_an_earlier_phase_with_predictions_is_no_member_of_ensembles(tmp_path, database):
    """Its row is there, but predictions for the run are those of the last phase alone, here and in the folder of the seed."""
    home = origin_home(Home(tmp_path / "phases", database))
    recipe = yaml.safe_load(home.recipe.read_text())
    recipe["students"]["pretrained"]["losses"] = ["cross-entropy", "soft-target"]
    home.recipe.write_text(yaml.safe_dump(recipe))
    assert home.run() == 0, home.said()
    (run,) = home.runs
    outcome = read_run(run).outcomes["distilled"][0]
    assert (outcome.students, outcome.members, outcome.ensembles) == (["pretrained", "tuned"], ["tuned"], {})
    assert set(outcome.evaluations()) == {"skeleton", "pretrained", "tuned"}
    assert find_student(run) == run / "students/seed-0/tuned"
    folder = run / "students/seed-0"
    signal = {"accelerometer": kdcore.Signal(np.random.default_rng(0).standard_normal((40, 3), np.float32), rate=50.0)}
    found, tuned, pretrained = (
        load_predictor(each).probabilities([signal]) for each in (folder, *sorted(folder.iterdir())[::-1])
    )
    assert np.array_equal(found, tuned)
    assert not np.array_equal(found, pretrained)
    assert [line.split(":")[0] for line in evaluate_run(str(run))] == ["seed-0 pretrained", "seed-0 tuned"]


def test_a_student_from_which_a_teacher_starts_is_a_member_of_ensembles(tmp_path, database):
    """In both arms, and where its folder is loaded: no other student is a later phase of it."""
    recipe = tiny_recipe(database, "teacher-from-student", seeds=[0], training={"epochs": 1})
    del recipe["schedule"]
    student = recipe.pop("student")
    recipe["students"] = {"a": {**student, "learns_from": ["skeleton"]}, "b": {**student, "learns_from": ["assistant"]}}
    assistant = {**student, "starts_from": "a", "learns_from": ["skeleton"], "losses": ["cross-entropy", "soft-target"]}
    recipe["teachers"]["assistant"] = assistant
    home = Home(tmp_path / "home", database)
    home.folder.mkdir()
    home.recipe.write_text(yaml.safe_dump(recipe))
    assert home.run() == 0, home.said()
    (run,) = home.runs
    assert {arm: each[0].members for arm, each in read_run(run).outcomes.items()} == {
        "distilled": ["a", "b"],
        "baseline": ["a", "b"],
    }
    assert set(load_predictor(run / "students/seed-0").members) == {"a", "b"}
