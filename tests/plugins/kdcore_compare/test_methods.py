"""The methods that a recipe is compared with, and the choice of their weights."""

from __future__ import annotations

import json

import pytest
import yaml
from quick import QUICK
from runs import Home

from kdcore import PluginError, RunListener, StagePlan, UsageError, load_recipe
from kdcore_compare.compare_methods import best_weight
from kdcore_compare.methods import checked, methods_of, parse_grid
from kdcore_compare.step_clock import StepClock, stage_times

LOSSES = [
    "cross-entropy",
    {"name": "soft-target", "weight": 2, "temperature": 4},
    {"name": "soft-target", "id": "hot", "weight": 0, "temperature": 20},
    {"name": "fitnet", "weight": 0},
    {"name": "attention-transfer", "weight": 0, "pairs": [["middle", "middle"]]},
    "tf-kd",
]


@pytest.fixture
def home(tmp_path, database, monkeypatch):
    made = Home(tmp_path / "methods", database).write(**QUICK, losses=LOSSES)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


def test_a_method_is_a_term_with_its_weight_times_the_grid(home):
    found = methods_of(str(home.recipe), [], [0.1, 1, 10])
    assert [each.label for each in found.methods] == ["soft-target", "hot", "fitnet", "attention-transfer", "tf-kd"]
    assert [each.weights for each in found.methods[:2]] == [(0.2, 2, 20), (0.1, 1, 10)]
    assert [each["name"] for each in found.base] == ["cross-entropy"]


def test_a_variant_has_the_baselines_terms_and_one_more(home):
    found = methods_of(str(home.recipe), [], [1])
    for method in found.methods[:2]:
        recipe = load_recipe(str(home.recipe), found.overrides(method, 7.5, "some label"))
        assert [each.name for each in recipe.losses] == ["cross-entropy", "soft-target"]
        assert recipe.losses[1].weight == 7.5
        assert recipe.losses[1].options["temperature"] == method.term["temperature"]
        assert recipe.engine.reuse_teachers


def test_losses_can_be_added_by_name(home):
    found = methods_of(str(home.recipe), [], [1, 2], ["dkd", "soft-target"])
    assert found.methods[-1].label == "dkd"  # soft-target is in the recipe
    assert found.methods[-1].weights == (1, 2)
    every = {each.label for each in methods_of(str(home.recipe), [], [1], ["all"]).methods}
    assert every >= {"dkd", "mutual", "gsdm", "acs", "fsp", "reviewkd"}
    assert "cross-entropy" not in every


def test_what_cannot_be_compared_is_refused(home, tmp_path):
    with pytest.raises(PluginError, match="dkd"):
        methods_of(str(home.recipe), [], [1], ["dkt"])
    with pytest.raises(UsageError, match="has 2"):
        methods_of(str(home.recipe), ["student.copies=2", "losses=[cross-entropy, mutual]"], [1])
    with pytest.raises(UsageError, match="nothing to compare:"):
        methods_of(str(home.recipe), ["losses=[cross-entropy]"], [1])
    with pytest.raises(UsageError, match="no term without"):
        methods_of(str(home.recipe), ["losses=[soft-target]"], [1])
    with pytest.raises(UsageError, match="ramp"):
        methods_of(str(home.recipe), ["losses.soft-target.weight={start: 0, stop: 1, epochs: 2}"], [1])


def test_a_loss_that_cannot_work_is_kept_with_the_reason(home):
    added = ["mutual", "average", "fsp", "consistency", "semantic-match"]
    found = checked(methods_of(str(home.recipe), [], [1], added), str(home.recipe), [])
    reasons = {each.label: each.impossible for each in found.methods}
    assert reasons["soft-target"] == reasons["tf-kd"] == reasons["consistency"] == ""
    assert "needs the tap 'features'" in reasons["fitnet"]
    assert "needs the tap 'middle'" in reasons["attention-transfer"]
    assert "needs at least 1 peer" in reasons["mutual"]
    assert "needs at least 2 teachers" in reasons["average"]
    assert "pairs" in reasons["fsp"]


def test_taps_of_the_recipe_make_it_work_and_its_parameters_are_counted(home):
    tree = yaml.safe_load(home.recipe.read_text())
    for participant in (tree["student"], tree["teachers"]["skeleton"]):
        participant["taps"] = {"features": "pool", "middle": "blocks.0"}
    tree["teachers"]["skeleton"]["encoder"]["width"] = 8
    home.recipe.write_text(yaml.safe_dump(tree))
    found = checked(methods_of(str(home.recipe), [], [1]), str(home.recipe), [])
    by_label = {each.label: each for each in found.methods}
    assert not any(each.impossible for each in found.methods)
    assert by_label["fitnet"].parameters == 8 * 16  # a linear map from the student's channels to the teacher's
    assert by_label["attention-transfer"].parameters == by_label["soft-target"].parameters == 0


def test_a_weight_that_gives_no_gradient_is_not_tried(home):
    found = checked(methods_of(str(home.recipe), ["losses=[cross-entropy, soft-target]"], [1e-30, 1]), str(home.recipe), [])
    assert [each.weights for each in found.methods] == [(1.0,)]


@pytest.mark.parametrize(
    ("scores", "metric", "expected"),
    [
        ({0.1: (0.5, 1.0), 1.0: (0.7, 2.0), 10.0: (0.6, 0.1)}, "accuracy", 1.0),
        ({0.1: (0.7, 1.0), 1.0: (0.7, 0.9), 10.0: (0.7, 1.1)}, "accuracy", 1.0),  # the least cross-entropy
        ({10.0: (0.7, 1.0), 1.0: (0.7, 1.0)}, "macro_f1", 1.0),  # the least weight
        ({0.1: (0.5, 0.5), 1.0: (0.7, 0.7)}, "loss", 0.1),
    ],
)
def test_the_best_weight(scores, metric, expected):
    assert best_weight(scores, metric) == expected


@pytest.mark.parametrize("text", ["", "1,", "0,1", "-1", "1,1", "nan", "inf", "1;2"])
def test_a_grid_of_other_than_distinct_positive_numbers_is_refused(text):
    with pytest.raises(UsageError, match="distinct positive numbers"):
        parse_grid(text)


def test_a_grid_is_a_list_of_numbers():
    assert parse_grid("0.1, 1,1e3") == [0.1, 1, 1000]


def stage(*learners: str) -> StagePlan:
    return StagePlan("some", learners, (), {}, 3, "train", 4, "some")


def test_the_clock_measures_the_stages_in_which_the_student_learns(tmp_path, monkeypatch):
    times = iter([(10.0, 1.0), (11.0, 1.5), (12.0, 2.0), (13.0, 2.5)])
    monkeypatch.setattr("kdcore_compare.step_clock._now", lambda: next(times))
    heard = []
    to = RunListener()
    to.epoch_finished = lambda stage, epoch, metrics: heard.append(epoch)  # type: ignore[method-assign]
    clock = StepClock(tmp_path, "student", "dkd 0.1", to)
    clock.arm_started(3, "distilled", [stage("student")])
    clock.stage_started(stage("student"), 5)
    for epoch in range(3):
        clock.epoch_finished(stage("student"), epoch, {})
    clock.stage_finished(stage("student"))
    assert heard == [0, 1, 2]
    [found] = stage_times(tmp_path, "dkd 0.1", [2, 3])
    assert (found.steps, found.seconds, found.cpu_seconds) == (15, 3.0, 1.5)
    [path] = tmp_path.iterdir()
    assert json.loads(path.read_text())["arm"] == "distilled"


def test_the_clock_does_not_measure_teachers(tmp_path):
    clock = StepClock(tmp_path, "student", "dkd 0.1", RunListener())
    clock.arm_started(3, "distilled", [stage("skeleton")])
    clock.stage_started(stage("skeleton"), 5)
    clock.epoch_finished(stage("skeleton"), 0, {})
    clock.stage_finished(stage("skeleton"))
    assert list(stage_times(tmp_path, "dkd 0.1", [3])) == []
