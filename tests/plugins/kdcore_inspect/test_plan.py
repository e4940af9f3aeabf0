"""Plans of TAKD, whose graph is a chain: teacher, assistant, student."""

from __future__ import annotations

import json

import pytest

from kdcore import load_recipe, make_plan
from kdcore_inspect.commands import PlanFormat, plan
from kdcore_inspect.plan import mermaid, tree

CHAIN = {"teacher": [], "assistant": ["teacher"], "student": ["assistant"]}


@pytest.fixture(scope="module")
def takd():
    return make_plan(load_recipe("methods/takd", []))


def test_the_record_has_the_chain_and_leaves_it_out_of_the_baseline(capsys):
    plan("methods/takd", format=PlanFormat.json)
    found = json.loads(capsys.readouterr().out)
    assert {name: each["teachers"] for name, each in found["participants"].items()} == CHAIN
    stages = {arm: [list(stage["learners"]) for stage in stages] for arm, stages in found["arms"].items()}
    assert stages == {"distilled": [["teacher"], ["assistant"], ["student"]], "baseline": [["student"]]}
    assert all(stage["split"] == "train" for stages in found["arms"].values() for stage in stages)
    reads = {
        (arm, name, source)
        for arm, stages in found["arms"].items()
        for stage in stages
        for name, terms in stage["learners"].items()
        for term in terms
        for source in term["reads"]
    }
    assert reads == {("distilled", name, source) for name, sources in CHAIN.items() for source in sources}


def test_the_diagram_has_an_arrow_for_each_source(takd):
    arrows = {tuple(line.split(" -- ")[0].split() + line.split("--> ")[1].split()) for line in mermaid(takd) if "-->" in line}
    assert arrows == {(source, name) for name, sources in CHAIN.items() for source in sources}


def test_the_tree_says_how_outputs_of_a_source_are_obtained(takd):
    assert sum("← teacher (frozen, cached)" in line for line in tree(takd)) == 1
    uncached = make_plan(load_recipe("methods/takd", ["engine.teacher_cache=false"]))
    lines = list(tree(uncached))
    assert sum("← teacher (frozen)" in line for line in lines) == 1
    assert not any("cached" in line for line in lines)


@pytest.mark.parametrize(
    ("weight", "shown"),
    [
        ("0.5", "0.5 × soft-target"),
        ("{start: 0, stop: 1, epochs: 3}", "0 to 1 (over 3 epochs) × soft-target"),
        ("{start: 0, stop: 1, epochs: 1, after: 2}", "0 to 1 (over 1 epoch, after 2 epochs) × soft-target"),
        ("{start: 1, stop: 0, epochs: 0, after: 1}", "1 to 0 (after 1 epoch) × soft-target"),
    ],
)
def test_a_weight_that_changes_is_shown_with_its_epochs(weight, shown):
    lines = list(tree(make_plan(load_recipe("quickstart", [f"losses.soft-target.weight={weight}"]))))
    assert [line.strip().partition(" ←")[0] for line in lines if "soft-target" in line] == [shown]


def test_weights_that_a_participant_starts_from_are_shown():
    made = make_plan(load_recipe("methods/contrastive-pretraining", []))
    assert "  pretrained -. weights .-> fine_tuned" in list(mermaid(made))
    lines = list(tree(made))
    baseline = next(index for index, line in enumerate(lines) if line.startswith("baseline"))
    assert [index < baseline for index, line in enumerate(lines) if "starts from the weights of pretrained" in line] == [True]
    assert any("fine-tuned: 80 epochs" in line for line in lines[baseline:])
