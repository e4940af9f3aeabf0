"""Participants that a recipe must have, their sources, and schedules that contradict them."""

from __future__ import annotations

import json
import re
from dataclasses import FrozenInstanceError

import pytest

from kdcore import Graph, Training
from kdcore.recipe.plan import BASELINE, DISTILLED, make_plan

LOSSES = """losses:
  - cross-entropy
  - {name: soft-target, weight: 0.5, temperature: 2}
  - {name: feature, id: late, teacher: block, student: layers.1}
"""
TEACHERS = re.compile(r"teachers:\n(?:  .*\n)+")


def test_no_losses(valid, problems):
    [found] = problems(valid.replace(LOSSES, "losses: []\n"))
    assert (found.path, found.line, found.message) == ("losses", 18, "must not be empty")


def test_missing_losses(valid, problems):
    [found] = problems(valid.replace(LOSSES, ""))
    assert (found.path, found.message) == ("losses", "the key 'losses' is missing")


def test_what_no_override_said_is_missed_in_the_file(valid, problems, tmp_path):
    [found] = problems(valid.replace(LOSSES, ""), "seeds=[1]")
    assert (found.file, found.message) == (tmp_path / "recipe.yaml", "the key 'losses' is missing")


def test_teachers_needed(valid, problems):
    found = problems(TEACHERS.sub("", valid))
    assert [each.path for each in found] == ["losses[1]", "losses[2]"]
    assert found[0].message == "the loss 'soft-target' needs at least 1 teacher, but 'student' learns from none"


def test_a_term_without_weight_needs_nothing(valid, load):
    load(TEACHERS.sub("", valid), "losses.soft-target.weight=0", "losses.late.weight=0")


def test_teachers_learn_with_labels_that_students_are_not_told(valid, load):
    text = valid.replace("  - cross-entropy\n", "").replace("schedule: {name: one-stage, training: {epochs: 3}}\n", "")
    recipe = load(text, "data.labels=withheld", "teachers.acc.split=teacher")
    assert [term.id for term in recipe.teacher_losses] == ["cross-entropy"]


def test_two_participants_of_one_name(valid, problems):
    text = valid.replace(
        "student:\n  modality: skeleton\n  encoder: net\n", "students:\n  acc:\n   modality: skeleton\n   encoder: net\n"
    )
    found = problems(text.replace("  taps: [layers.1]", "   taps: [layers.1]"))
    assert [(each.path, each.line) for each in found] == [("students.acc", 15)]


def test_either_student_or_students(valid, problems):
    both = problems(valid + "students: {b: {like: student}}\n")
    assert [(each.path, each.line) for each in both] == [("students", 24)]
    neither = problems(re.sub(r"student:\n(  .*\n)+", "", valid))
    assert [each.message for each in neither] == ["there is no student: give 'student', or several 'students'"]


def test_several_modalities_need_a_mapping(valid, problems):
    text = valid.replace("modality: accelerometer", "modality: [accelerometer, gyroscope]")
    assert {(each.path, each.line) for each in problems(text)} >= {("teachers.acc.transforms", 9)}
    mapped = text.replace("    transforms:\n      - {name: cut, length: 64}", "    transforms: {accelerometer: [], joint: []}")
    assert {(each.path, each.line) for each in problems(mapped)} >= {("teachers.acc.transforms.joint", 9)}


# Edges

BASE = """\
version: 1
name: graph
data:
  dataset: {name: folder, root: /nowhere}
  protocol: halves
teachers:
  big: {modality: accelerometer, encoder: net}
  small: {modality: gyroscope, encoder: net}
students:
  one: {modality: skeleton, encoder: net}
  two: {modality: skeleton, encoder: net}
losses: [cross-entropy, soft-target]
training: {epochs: 4}
"""
OWN = "[cross-entropy, soft-target]"
SOFT = "losses=[cross-entropy, {name: soft-target, teachers: "

REFUSED = {
    "unknown source": (
        ["students.one.learns_from=[bog]"],
        "students.one.learns_from[0]",
        "there is no participant 'bog'",
        "'big'",
    ),
    "from itself": (
        ["students.one.learns_from=[big, one]"],
        "students.one.learns_from[1]",
        "'one' cannot learn from itself",
        "",
    ),
    "zeros for a single modality": (
        ["students.one.fill_missing=true", "data.missing=mask"],
        "students.one.fill_missing",
        "'fill_missing' requires several modalities",
        "",
    ),
    "zeros for samples that are dropped": (
        ["students.one={modality: [skeleton, gyroscope], fill_missing: true}"],
        "students.one.fill_missing",
        "requires data.missing: mask",
        "other values drop these samples",
    ),
    "a source twice": (["students.one.learns_from=[big, big]"], "students.one.learns_from[1]", "'big' is listed twice", ""),
    "follows nobody": (["teachers.ema={follows: three}"], "teachers.ema.follows", "there is no participant 'three'", ""),
    "follows itself": (["teachers.ema={follows: ema}"], "teachers.ema.follows", "'ema' cannot learn from itself", ""),
    "follows no network": (
        ["teachers.ema={follows: file}", "teachers.file={outputs: a.npz}"],
        "teachers.ema.follows",
        "'file' has no network of its own to average",
        "",
    ),
    "a student that is an average": (
        ["students.one={follows: two, modality: null, encoder: null}"],
        "students.one",
        "a student must be a network, not a moving average",
        "list it under 'teachers'",
    ),
    "a student that is a file": (
        ["students.one={outputs: a.npz, modality: null, encoder: null}"],
        "students.one",
        "a student must be a network, not a file of stored outputs",
        "list it under 'teachers'",
    ),
    "an edge that no term reads": (
        ["teachers.small.learns_from=[big]"],
        "teachers.small.learns_from[0]",
        "no term of 'small' reads 'big', so learning from it has no effect",
        "add a loss that reads teachers to the objective of 'small', or remove 'big' here",
    ),
    "a peer that no term reads": (
        [
            f"students.one={{learns_from: [big, two], losses: {OWN}}}",
            f"students.two={{learns_from: [one, big], losses: {OWN}}}",
        ],
        "students.one.learns_from[1]",
        "no term of 'one' reads 'two', so learning from it has no effect",
        "add a loss that reads peers",
    ),
    "a term that leaves a source out": (
        ["students.one={learns_from: [big, small], losses: [{name: soft-target, teachers: [big]}]}"],
        "students.one.learns_from[1]",
        "no term of 'one' reads 'small'",
        "",
    ),
    "a term of an unknown teacher": ([SOFT + "[bog]}]"], "losses[1].teachers[0]", "there is no participant 'bog'", "'big'"),
    "a term of no source": (
        ["students.one={learns_from: [big], losses: [{name: soft-target, teachers: [small]}]}"],
        "students.one.losses[0].teachers[0]",
        "'one' does not learn from 'small'",
        "add it to students.one.learns_from",
    ),
    "no teacher for a term": (
        ["teacher_losses=[cross-entropy, soft-target]"],
        "teacher_losses[1]",
        "the loss 'soft-target' needs at least 1 teacher, but 'big' learns from none",
        "name some in teachers.big.learns_from",
    ),
    "a peer instead of a teacher": (
        [f"students.{a}={{learns_from: [{b}], losses: {OWN}}}" for a, b in (("one", "two"), ("two", "one"))],
        "students.one.losses[1]",
        "the loss 'soft-target' needs at least 1 teacher, but 'one' learns from none",
        "'two' is a peer, trained together with it",
    ),
    "no peer for a term": (
        ["students.one.losses=[mutual]", "students.one.learns_from=[big]"],
        "students.one.losses[0]",
        "the loss 'mutual' needs at least 1 peer, but 'one' learns from none",
        "",
    ),
    "a tap of a teacher": (
        [
            "losses=[{name: feature, teacher: late, student: late}]",
            "students.one.taps={late: a}",
            "students.two.taps={late: a}",
        ],
        "losses[0]",
        "the loss 'feature' needs the tap 'late' of 'big' and 'small'",
        "",
    ),
    "nothing to learn": (["students.one.losses=[]"], "students.one.losses", "must not be empty", ""),
    "no weight": (
        ["students.one.losses=[{name: cross-entropy, weight: 0}]"],
        "students.one.losses",
        "every term of 'one' has weight 0; there is nothing to learn",
        "",
    ),
    "momentum of a network": (["teachers.big.momentum=0.5"], "teachers.big.momentum", "'momentum' requires 'follows'", ""),
    "an encoder of an average": (
        ["teachers.ema={follows: one, encoder: net}"],
        "teachers.ema.encoder",
        "'encoder' does not go with 'follows'",
        "",
    ),
    "an average of a file": (
        ["teachers.ema={follows: one, outputs: a.npz}"],
        "teachers.ema.outputs",
        "'follows' and 'outputs' exclude each other",
        "",
    ),
    "other epochs side by side": (
        [
            "students.one={learns_from: [two], losses: [cross-entropy, mutual], training: {epochs: 3}}",
            "students.two={learns_from: [one], losses: [cross-entropy, mutual], training: {epochs: 4}}",
        ],
        "training",
        "'one' and 'two' are trained together and need the same epochs",
        "",
    ),
    "early stopping of one side": (
        [
            "students.one={learns_from: [two], losses: [cross-entropy, mutual], training: {early_stopping: {patience: 2}}}",
            "students.two={learns_from: [one], losses: [cross-entropy, mutual], training: {early_stopping: {patience: 3}}}",
        ],
        "training",
        "'one' and 'two' are trained together and need the same",
        "",
    ),
    "a milestone after the end": (
        ["training.learning_rate={name: step, milestones: [2, 4]}"],
        "training",
        "'big' learns for 4 epochs and does not reach the milestone 4 of its learning rate",
        "",
    ),
    "a warmup without end": (
        ["students.one.training={epochs: 2, learning_rate: {warmup: 2}}"],
        "students.one.training",
        "'one' learns for 2 epochs, and its learning rate warms up for 2",
        "",
    ),
    "a held-out split": (
        ["teachers.big.split=test"],
        "teachers.big.split",
        "'big' learns from the test split, which is held",
        "'train'",
    ),
    "a frozen student": (["students.one.freeze=['*']"], "students.one.freeze", "all of 'one' is frozen, so a student has", ""),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_graph_that_cannot_be_meant_is_refused(problems, case):
    overrides, path, message, hint = REFUSED[case]
    overrides = [
        line.replace("={", "={modality: skeleton, encoder: net, ", 1)
        if line.startswith("students.") and "={learns_from" in line
        else line
        for line in overrides
    ]
    found = [each for each in problems(BASE, *overrides) if each.path == path]
    assert any(message in each.message and hint in each.hint for each in found), found


# Schedules


def fixed(*stages):
    """A line of the command line: these stages, and no others."""
    return f"schedule={json.dumps({'name': 'fixed', 'given': stages})}"


SCHEDULED = BASE.replace("training: {epochs: 4}\n", "")
TEACH = {"name": "teachers", "learners": ["big", "small"]}
LEARN = {"name": "students", "learners": ["one", "two"]}
CONTRADICTIONS = {
    "unknown": ([TEACH, LEARN | {"learners": ["one", "two", "three"]}], "trains 'three' in stage 'students', but there is no"),
    "twice": ([TEACH, LEARN | {"learners": ["one", "two", "one"]}], "lists 'one' twice in stage 'students'"),
    "nobody": ([TEACH, LEARN, LEARN | {"name": "coda", "learners": []}], "has no learners in stage 'coda'"),
    "no epochs": ([TEACH, LEARN | {"epochs": 0}], "gives stage 'students' 0 epochs"),
    "early": ([LEARN, TEACH], "trains 'one' in stage 'students', before 'big' and 'small', which it learns from"),
    "idle": ([TEACH, LEARN | {"learners": ["one"]}], "never trains 'two'"),
    "held out": ([TEACH, LEARN | {"split": "validation"}], "trains 'one' and 'two' on the validation split, which is held out"),
    "optimizer": ([TEACH, LEARN | {"optimizer": "adamv"}], "in stage 'students': no optimizer 'adamv'; did you mean 'adam'?"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_schedule_that_contradicts_the_graph_is_refused(problems, case):
    stages, message = CONTRADICTIONS[case]
    found = problems(SCHEDULED, fixed(*stages))
    assert {problem.path for problem in found} == {"schedule"}
    assert any(f"the schedule 'fixed' {message}" in problem.message for problem in found), found


def test_a_schedule_does_not_train_what_has_nothing_to_train(problems):
    [found] = problems(SCHEDULED, "teachers.small.freeze=['*']", fixed(TEACH, LEARN))
    assert found.message == "the schedule 'fixed' trains 'small' in stage 'teachers', which has nothing to train"


def test_epochs_of_a_participants_own_training_are_kept(problems):
    half = LEARN | {"epochs": 2}
    [found] = problems(SCHEDULED, "students.one.training={epochs: 3}", fixed(TEACH, half, half))
    assert found.message == "the schedule 'fixed' trains 'one' for 4 epochs, but its own training sets 3"


def test_a_training_that_the_schedule_does_not_use_is_refused(problems):
    [found] = problems(BASE, fixed(TEACH, LEARN))
    assert found.path == "training"
    assert found.message == "'training' has no effect, since the schedule sets the training of each stage"


def test_a_training_that_the_schedule_changes_is_used(load):
    plan = make_plan(load(BASE, "schedule=doubled"))
    assert [stage.epochs for stage in plan.stages[DISTILLED]] == [8] * len(plan.stages[DISTILLED])


def test_a_filled_recipe_with_a_schedule_is_valid(load):
    """It has the default training, spelled out."""
    assert load(SCHEDULED, "training={epochs: 30}", fixed(TEACH, LEARN)).training == Training()


# Plans


def test_plans_are_frozen_and_equal_for_equal_recipes(load):
    plan, same = make_plan(load(BASE)), make_plan(load(BASE))
    assert (plan.graph, plan.stages, plan.hash, plan.filled) == (same.graph, same.stages, same.hash, same.filled)
    assert plan.participants == same.participants
    assert plan.hash != make_plan(load(BASE, "training.epochs=5")).hash
    for holder, field in ((plan, "hash"), (plan.participants["one"], "terms"), (plan.stages[DISTILLED][0], "epochs")):
        with pytest.raises(FrozenInstanceError):
            setattr(holder, field, None)


def test_the_baseline_has_the_students_of_each_stage_with_epochs_batches_split_and_order(load):
    joint = {"name": "joint", "learners": ["big", "small", "one"]}
    plan = make_plan(load(SCHEDULED, fixed(joint, LEARN | {"learners": ["two"]})))
    distilled, baseline = plan.stages[DISTILLED], plan.stages[BASELINE]
    assert [stage.learners for stage in distilled] == [("big", "small", "one"), ("two",)]
    assert [stage.learners for stage in baseline] == [("one",), ("two",)]
    for with_kd, without in zip(distilled, baseline, strict=True):
        for field in ("name", "epochs", "split", "batch_size", "order"):
            assert getattr(with_kd, field) == getattr(without, field)
        assert without.sources == ()
        assert without.training == {name: with_kd.training[name] for name in without.learners}
    assert plan.members(BASELINE) == plan.compared == ("one", "two")


def test_terms_read_the_teachers_that_they_name(load):
    losses = "[cross-entropy, {name: soft-target, teachers: [big]}, {name: soft-target, teachers: [small], weight: 0.5}]"
    plan = make_plan(load(BASE, f"losses={losses}"))
    terms = plan.participants["one"].terms
    assert [(term.teachers, term.term.weight) for term in terms[1:]] == [(("big",), 1.0), (("small",), 0.5)]
    assert plan.stages[DISTILLED][-1].sources == ("big", "small")


def test_students_of_unequal_length_share_no_stage(load):
    plan = make_plan(load(SCHEDULED, "students.one.training={epochs: 6}", fixed(TEACH, LEARN)))
    assert [(stage.learners, stage.epochs) for stage in plan.stages[DISTILLED]] == [
        (("big", "small"), 4),
        (("one",), 6),
        (("two",), 4),
    ]


@pytest.mark.parametrize("schedule", [[], [fixed(TEACH, LEARN)]], ids=["graph", "schedule"])
def test_a_participants_own_training_inherits_nothing(load, schedule):
    rest = "training={epochs: 4, batch_size: 2, optimizer: {name: sgd, lr: 0.5}, learning_rate: {name: cosine}}"
    own = "students.one.training={epochs: 6}"
    plan = make_plan(load(SCHEDULED, own, *schedule) if schedule else load(BASE, rest, own))
    [own] = [stage.training["one"] for stage in plan.stages[DISTILLED] if "one" in stage.learners]
    assert own == Training(epochs=6)


def test_the_default_graph():
    graph = Graph.of(("big", "small"), ("one", "two"))
    assert {name: node.learns_from for name, node in graph.nodes.items()} == {
        "big": (),
        "small": (),
        "one": ("big", "small"),
        "two": ("big", "small"),
    }
