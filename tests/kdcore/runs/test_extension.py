"""More epochs for a finished run; and lengths of training that are not the same in both arms."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from runs import tiny_recipe

from kdcore.errors import CheckpointError, RecipeError, TrainingError, UsageError
from kdcore.recipe.load import load_recipe
from kdcore.recipe.plan import make_plan
from kdcore.runs.arms import compare_lengths
from kdcore.runs.extension import extension, final_state
from kdcore.runs.records import read_facts
from kdcore.runs.run import dry_run, resume, run
from kdcore.runs.state import RunState

STUDENT = {"learning_rate": {"name": "step", "milestones": [1]}, "ema": {"momentum": 0.8}, "select": "best", "accumulate": 2}
SHORT = {
    "seeds": [0],
    "losses": ["cross-entropy", {"name": "soft-target", "weight": {"start": 0.5, "stop": 1, "epochs": 3}}],
    "schedule": {"name": "two-stage", "teachers": {"epochs": 1}, "student": {"epochs": 2, **STUDENT}},
}


def curves(folder):
    found = {}
    for line in (folder / "tracking" / "journal.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["kind"] == "metrics" and record["run"] == "seed-0":
            values = record["values"].items()
            found |= {(key, record["step"]): value for key, value in values if not key.startswith("system/")}
    return found


def test_an_extension_is_a_longer_run_to_the_bit_and_says_what_it_is(home):
    home.write(**SHORT)
    short = run(home.recipe).folder
    long = resume(short, ["schedule.student.epochs=4"]).folder
    whole = run(home.recipe, ["schedule.student.epochs=4"]).folder
    for path in ("students/seed-0/student/weights.safetensors", "baseline/seed-0/student.safetensors"):
        assert (long / path).read_bytes() == (whole / path).read_bytes()
    for arm in ("distilled", "baseline"):
        one, other = (np.load(each / "results" / f"seed-0-{arm}.npz") for each in (long, whole))
        assert all(np.array_equal(one[key], other[key]) for key in one.files if "probabilities" in key)
    assert curves(long) == curves(whole)
    facts = read_facts(long)
    assert facts.extends == {"run": short.name, "epochs": {"student": [2, 4]}, "differs": []}
    assert "student from 2 to 4 epochs; the same, bit for bit, as a run of so many epochs" in facts.notes[-1]
    assert read_facts(whole).extends == {}
    assert f"extends {short.name}" in (long / "report.html").read_text()
    again = extension(long, *(plan(long, *o) for o in ([], ["schedule.student.epochs=5"])))
    assert again.epochs == {"student": (4, 5)}


def plan(folder, *overrides):
    return make_plan(load_recipe(folder / "recipe.yaml", overrides))


@pytest.fixture
def finished(tmp_path):
    """The folder of a run as if it were finished."""

    def make(complete=True, states=True, **sections):
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tiny_recipe(tmp_path / "db", "x", **sections)))
        RunState(complete=complete).write(tmp_path)
        for seed, arm in [(s, a) for s in (0, 1) for a in ("distilled", "baseline")] if states else ():
            final_state(tmp_path, seed, arm).mkdir(parents=True, exist_ok=True)
        return tmp_path

    return make


def extended(folder, *overrides):
    return extension(folder, plan(folder), plan(folder, *overrides))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["schedule.student.epochs=2"], "nothing would change; give it more epochs"),
        (["schedule.student.epochs=1"], "stage 'student' was trained for 2 epochs; an extension has more"),
        (["schedule.teachers.epochs=5"], "stage 'teachers' is followed by 'student'; only the last stage can be extended"),
        (["schedule.student.epochs=5", "seeds=[3]"], "seeds was .* a finished run can only be given more epochs"),
        (["schedule.student.epochs=5", "losses.soft-target.weight=2"], "can only be given more epochs"),
    ],
)
def test_what_is_no_extension_is_refused(finished, overrides, said):
    with pytest.raises(UsageError, match=said):
        extended(finished(), *overrides)


def test_runs_that_cannot_be_extended_are_refused(finished):
    with pytest.raises(CheckpointError, match="kept no final state to extend it from"):
        extended(finished(states=False), "schedule.student.epochs=5")
    with pytest.raises(CheckpointError, match="is not finished: kdcore resume"):
        extended(finished(complete=False), "schedule.student.epochs=5")
    cycle = {"name": "two-stage", "student": {"epochs": 2, "learning_rate": {"name": "one-cycle"}}}
    with pytest.raises(UsageError, match="'one-cycle' ends with its last step and cannot be extended"):
        extended(finished(schedule=cycle), "schedule.student.epochs=5")


@pytest.mark.parametrize(
    ("rule", "same"),
    [
        ({"name": "constant"}, True),
        ({"name": "exponential"}, True),
        ({"name": "cosine-restarts"}, True),
        ({"name": "plateau"}, True),
        ({"name": "cosine"}, False),
        ({"name": "polynomial"}, False),
    ],
)
def test_an_extension_says_whether_it_equals_a_longer_run(finished, rule, same):
    folder = finished(schedule={"name": "two-stage", "student": {"epochs": 2, "learning_rate": rule}})
    found = extended(folder, "schedule.student.epochs=5")
    assert found.epochs == {"student": (2, 5)}
    assert (found.differs == ()) is same
    assert same or f"learning rate '{rule['name']}' of student depends on their number" in found.lines()[0]


def test_epochs_may_be_given_in_a_participants_own_training(finished):
    """It spells out options that the recipe's training had before; others would make another run."""
    folder = finished(schedule=None, training={"epochs": 2})
    assert extended(folder, "student.training.epochs=5").epochs == {"student": (2, 5)}
    with pytest.raises(UsageError, match=r"student\.training\.\S+ was None and cannot become"):
        extended(folder, "student.training.epochs=5", "student.training.optimizer={name: adamw, lr: 0.5}")
    with pytest.raises(UsageError, match="width was 4 and cannot become 8"):
        extended(folder, "student.training.epochs=5", "student.encoder.width=8")


# Lengths of both arms


def test_arms_of_other_lengths_are_refused_unless_a_rule_ended_one():
    assert compare_lengths({"a": [3, 9, ""]}, {"a": [3, 9, ""]}, {}) == []
    with pytest.raises(TrainingError, match="a was trained for 3 epochs and 9 steps with distillation, and for 2 epochs"):
        compare_lengths({"a": [3, 9, ""]}, {"a": [2, 6, ""]}, {})
    with pytest.raises(TrainingError, match="a baseline must have the same"):
        compare_lengths({"a": [3, 9, ""]}, {"a": [3, 8, ""]}, {})
    (said,) = compare_lengths({"a": [3, 9, "rule"]}, {"a": [5, 15, ""], "b": [1, 1, "rule"]}, {})
    assert said.startswith("a was trained for 5 epochs (15 steps) without distillation and for 3 (9) with it")


def test_a_baseline_without_the_students_first_phase_has_its_epochs_more():
    assert compare_lengths({"a": [3, 9, ""]}, {"a": [7, 21, ""]}, {"a": 4}) == []
    for wrong in ([3, 9, ""], [6, 18, ""], [7, 20, ""]):
        with pytest.raises(TrainingError, match="a baseline must have the same and 4 epochs more"):
            compare_lengths({"a": [3, 9, ""]}, {"a": wrong}, {"a": 4})
    (said,) = compare_lengths({"a": [3, 9, ""]}, {"a": [5, 15, "rule"]}, {"a": 4})
    assert said.endswith("the first had a limit of 4 epochs more, and both could end early by the same rule")


def test_both_arms_stop_early_and_the_results_say_so(home):
    stopping = {"epochs": 8, "early_stopping": {"patience": 1, "min_delta": 2.0}}
    home.write(**{**SHORT, "schedule": {"name": "two-stage", "teachers": {"epochs": 1}, "student": stopping}})
    folder = run(home.recipe).folder
    state = RunState.read(folder)
    assert [state.trained[f"seed-0/{arm}".replace("seed-", "")]["student"][0] for arm in ("distilled", "baseline")] == [2, 2]
    report = (folder / "report.html").read_text()
    assert "student ended after 2 of 8 epochs: validation accuracy did not improve by more than 2 for 1 epochs" in report
    assert "student was trained for 2 epochs" in report


# Refused before training


@pytest.mark.parametrize(
    ("option", "key", "what"),
    [
        ("schedule.student.early_stopping={patience: 3}", "early_stopping", "stop early"),
        ("schedule.student.learning_rate={name: plateau}", "learning_rate", "let the learning rate follow a validation metric"),
    ],
)
def test_without_validation_samples_what_reads_them_is_refused(home, option, key, what):
    home.write(**SHORT)
    overrides = ["data.protocol.validation_subjects=0", "schedule.student.select=last", option]
    with pytest.raises(RecipeError, match=rf"schedule.student.{key}: stage 'student' cannot {what}: there are no labelled"):
        dry_run(home.recipe, overrides)


def test_a_group_without_modules_is_refused_with_the_nearest_ones(home):
    home.write(**SHORT)
    with pytest.raises(RecipeError, match=r"parameter_groups\[0\].modules\[0\]: no trainable parameter of student's encoder"):
        dry_run(home.recipe, ["schedule.student.parameter_groups=[{modules: [layer9], lr_factor: 0.1}]"])


def test_a_group_of_a_loss_is_ignored_by_participants_without_it(tmp_path):
    tree = tiny_recipe(tmp_path / "db", "x", losses=["cross-entropy", {"name": "fitnet", "id": "hint"}])
    del tree["schedule"]
    for each in (tree["teachers"]["skeleton"], tree["student"]):
        each["taps"] = {"features": "pool"}
    tree["training"] = {"epochs": 1, "parameter_groups": [{"modules": ["losses.hint"], "lr_factor": 2}]}
    assert [term.term for term in dry_run(tree).terms] == ["cross-entropy", "cross-entropy", "hint"]
    with pytest.raises(RecipeError, match=r"of skeleton's losses matches 'losses\.hin'"):
        dry_run(tree, ["training.parameter_groups=[{modules: [losses.hin], lr_factor: 2}]"])
    own = ["teachers.skeleton.training={parameter_groups: [{modules: [losses.hint], lr_factor: 2}]}"]
    with pytest.raises(RecipeError, match=r"teachers\.skeleton\.training\.parameter_groups.*of skeleton's losses matches"):
        dry_run(tree, own)


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"early_stopping": {"patience": 3}}, "early_stopping requires a single stage for 'student', which is trained in 2"),
        ({"learning_rate": {"name": "one-cycle"}}, "learning_rate 'one-cycle' requires a single stage for 'student'"),
    ],
)
def test_options_that_need_one_stage_are_refused_in_several(tmp_path, training, said):
    tree = tiny_recipe(tmp_path / "db", "x", schedule={"name": "progressive", "rounds": 2, "student": training})
    with pytest.raises(RecipeError, match=said):
        make_plan(load_recipe(tree))


def test_a_group_frozen_longer_than_training_is_refused(tmp_path):
    student = {"epochs": 2, "parameter_groups": [{"modules": ["*"], "frozen_epochs": 2}]}
    tree = tiny_recipe(tmp_path / "db", "x", schedule={"name": "two-stage", "student": student})
    with pytest.raises(RecipeError, match="'student' learns for 2 epochs, and a parameter group is frozen for 2"):
        make_plan(load_recipe(tree))
