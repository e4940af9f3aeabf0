"""Starting from the trained weights of another participant: what a recipe must say for that, and what is planned."""

from __future__ import annotations

import re

import pytest

from kdcore.recipe.plan import make_plan

BASE = """\
version: 1
name: origin
data:
  dataset: {name: folder, root: /nowhere}
  protocol: halves
teachers:
  big: {modality: accelerometer, encoder: net, taps: {block: layers.0}}
students:
  pretrained:
    modality: skeleton
    encoder: net
    taps: {block: layers.0}
    losses: [{name: feature, teacher: block, student: block}]
  tuned: {modality: skeleton, encoder: net, learns_from: [], starts_from: pretrained, losses: [cross-entropy]}
training: {epochs: 4}
"""
TOGETHER = "schedule={name: fixed, given: [{name: t, learners: [big]}, {name: s, learners: [pretrained, tuned]}]}"
BEFORE = "schedule={name: fixed, given: [{name: t, learners: [big, tuned]}, {name: s, learners: [pretrained]}]}"

REFUSED = {
    "nobody": (["students.tuned.starts_from=pretrain"], "there is no participant 'pretrain'"),
    "itself": (["students.tuned.starts_from=tuned"], "'tuned' cannot start from itself"),
    "stored outputs": (
        ["teachers.file={outputs: a.npz}", "students.tuned.starts_from=file"],
        "'file' is a file of stored outputs, which has no trained weights of its own to start from",
    ),
    "a moving average": (
        ["teachers.average={follows: pretrained}", "students.tuned.starts_from=average"],
        "'average' is a moving average, which has no trained weights of its own to start from",
    ),
    "a peer": (
        ["students.pretrained.learns_from=[big, tuned]"],
        "'pretrained' is trained together with 'tuned', so its weights are not finished",
    ),
    "another encoder": (
        ["students.tuned.encoder=wide"],
        "the encoder of 'tuned' is 'wide', and that of 'pretrained' is 'net'",
    ),
    "a copy that somebody learns from": (
        ["students.tuned.freeze=['*']", "students.other={modality: skeleton, encoder: net, learns_from: [tuned]}"],
        "'tuned' is a copy of 'pretrained' for evaluation after training, and 'other' learns from it",
    ),
    "weights too": (["students.tuned.weights=a.safetensors"], "'weights' and 'starts_from' exclude each other"),
    "a frozen part": (
        ["students.tuned.freeze=[layers.0]"],
        "without distillation 'tuned' does not start from 'pretrained', so what it freezes would never be trained",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_origin_that_cannot_be(name, problems):
    overrides, message = REFUSED[name]
    found = [(each.path, each.message) for each in problems(BASE, *overrides)]
    assert ("students.tuned.starts_from", message) in found


@pytest.mark.parametrize("own", [False, True])
def test_an_origin_that_learns_from_every_student_by_default_is_told_apart(problems, own):
    text = BASE.replace("    losses: [{name: feature, teacher: block, student: block}]\n", "    losses: [mutual]\n")
    found = problems(text, *(["students.pretrained.learns_from=[big, tuned]"] if own else []))
    hints = [each.hint for each in found if "weights are not finished" in each.message]
    assert hints == ["" if own else "by default, 'pretrained' learns from 'big', 'tuned': set students.pretrained.learns_from"]


def test_a_frozen_part_is_fine_without_a_baseline(load):
    load(BASE, "students.tuned.freeze=[layers.0]", "baseline=false")


def test_the_origin_is_trained_before(problems):
    text = re.sub("training: .*\n", "", BASE)
    said = [(each.message, each.hint) for each in problems(text, TOGETHER)]
    assert (
        "the schedule 'fixed' trains 'tuned' together with 'pretrained', whose weights it starts from",
        "train 'pretrained' before",
    ) in said
    said = [each.message for each in problems(text, BEFORE)]
    assert "the schedule 'fixed' trains 'tuned' in stage 't', before 'pretrained', which it starts from" in said


def epochs(plan, arm):
    return {stage.name: (stage.epochs, {n: each.epochs for n, each in stage.training.items()}) for stage in plan.stages[arm]}


def test_without_distillation_it_is_trained_for_as_long_as_both(load):
    plan = make_plan(load(BASE, "students.pretrained.training={epochs: 7}"))
    assert epochs(plan, "distilled") == {
        "big": (4, {"big": 4}),
        "pretrained": (7, {"pretrained": 7}),
        "tuned": (4, {"tuned": 4}),
    }
    assert epochs(plan, "baseline") == {"tuned": (11, {"tuned": 11})}
    assert plan.extra_epochs == {"tuned": 7}
    assert plan.compared == ("tuned",)


def test_an_origin_that_learns_without_distillation_too_is_in_the_baseline(load):
    """It is trained for the same epochs in both arms, and the student starts from it in both."""
    plan = make_plan(load(BASE, "students.pretrained.losses=[cross-entropy, {name: feature, teacher: block, student: block}]"))
    assert epochs(plan, "baseline") == {"pretrained": (4, {"pretrained": 4}), "tuned": (4, {"tuned": 4})}
    assert plan.extra_epochs == {}
    assert plan.compared == ("pretrained", "tuned")


def test_a_supervised_origin_of_a_distilled_student_is_in_the_baseline(load):
    plan = make_plan(
        load(
            BASE,
            "students.pretrained={losses: [cross-entropy], learns_from: []}",
            "students.tuned.learns_from=[big]",
            "students.tuned.taps={block: layers.0}",
            "students.tuned.losses=[cross-entropy, {name: feature, teacher: block, student: block}]",
        )
    )
    assert epochs(plan, "baseline") == {"pretrained": (4, {"pretrained": 4}), "tuned": (4, {"tuned": 4})}
    assert plan.compared == ("tuned",)


def test_a_chain_of_origins_counts_all_of_their_epochs(load):
    imitating = "{learns_from: [big], taps: {block: layers.0}, losses: [{name: feature, teacher: block, student: block}]}"
    third = "students.third={like: tuned, starts_from: tuned, learns_from: [], losses: [cross-entropy]}"
    plan = make_plan(load(BASE, third, f"students.tuned={imitating}"))
    assert epochs(plan, "baseline") == {"third": (12, {"third": 12})}


def test_a_student_that_starts_from_a_teacher_is_distilled(load):
    plan = make_plan(load(BASE, "students.tuned={starts_from: big, modality: accelerometer}", "students.pretrained=null"))
    assert epochs(plan, "baseline") == {"tuned": (8, {"tuned": 8})}
    assert plan.unread == ()


def test_the_baseline_keeps_the_samples_of_its_stage(load):
    """Of both peers, though only one of them has an objective without distillation."""
    text = BASE.replace(
        "losses: [{name: feature, teacher: block, student: block}]", "losses: [mutual]\n    learns_from: [tuned]"
    )
    text = text.replace("learns_from: [], starts_from: pretrained, losses: [cross-entropy]", "losses: [cross-entropy, mutual]")
    plan = make_plan(load(text, "students.tuned.learns_from=[pretrained]"))
    (distilled,) = [stage for stage in plan.stages["distilled"] if "tuned" in stage.learners]
    (baseline,) = plan.stages["baseline"]
    assert baseline.learners == ("tuned",)
    assert baseline.rows_of == distilled.rows_of == distilled.learners == ("pretrained", "tuned")
