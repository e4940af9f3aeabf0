"""Values that the command line sets."""

from pathlib import Path

import pytest

from kdcore import Ramp
from kdcore.errors import Problem
from kdcore.recipe.overrides import apply_overrides
from kdcore.recipe.yaml import Node


@pytest.mark.parametrize("text", ["{action}.parquet", "s{subject}_{action}.csv", "{a}/{b}", "@watch", "{a}: {b}.csv"])
def test_overrides_that_are_no_yaml_are_text(text):
    problems: list[Problem] = []
    root = apply_overrides(Node({}), [f"data.pattern={text}"], problems)
    assert not problems
    assert root.plain() == {"data": {"pattern": text}}


@pytest.mark.parametrize("text", ["{name: x", "[1, 2", "{a: [1, 2}", '"x', "{a: b: c}"])
def test_overrides_that_are_broken_yaml_are_problems(text):
    problems: list[Problem] = []
    apply_overrides(Node({}), [f"data.pattern={text}"], problems)
    assert len(problems) == 1


def test_overrides(load, valid):
    recipe = load(
        valid,
        "losses.late.weight=0.1",
        "losses[1].weight={start: 0, stop: 1, epochs: 2}",
        "losses.soft-target.temperature=1e1",
        "teachers.acc.transforms[0].length=32",
        "teachers.acc.transforms.cut.at=end",
        "data.protocol=fake/halves",
        "engine.threads=1",
        "description=a = b",
        "tracking.tags.who=me",
    )
    assert recipe.losses[2].weight == 0.1
    assert recipe.losses[1].weight == Ramp(0, 1, 2)
    assert recipe.losses[1].options == {"temperature": 10.0}
    assert recipe.teachers["gyro"].transforms[0].options == {"length": 32, "at": "end"}
    assert recipe.data.protocol.name == "fake/halves"
    assert recipe.description == "a = b"
    assert recipe.tracking.tags == {"who": "me"}


@pytest.mark.parametrize("turn", [1, -1])
def test_another_name_drops_options_whatever_the_order(load, valid, turn):
    text = valid.replace("root: /nowhere", "root: /nowhere, kind: large")
    recipe = load(text, *["data.dataset.name=fake/folder", "data.dataset.root=~/x"][::turn])
    assert recipe.data.dataset.options == {"root": "~/x"}
    assert recipe.filled()["data"]["dataset"]["root"] == str(Path.home() / "x")


def test_the_same_name_keeps_options(load, valid):
    assert load(valid, "data.dataset.name=folder").data.dataset.options == {"root": "/nowhere"}


def test_qualified_names_in_overrides(load, valid, problems):
    text = valid.replace("- {name: soft-target,", "- {name: fake/soft-target,")
    assert load(text, "losses.fake/soft-target.temperature=9").losses[1].options == {"temperature": 9}
    assert load(text, "losses.soft-target.temperature=9").losses[1].options == {"temperature": 9}
    assert [term.name for term in load(text, "losses.fake/soft-target=null").losses] == ["cross-entropy", "feature"]
    assert load(text, "losses={fake/soft-target: {weight: 3}}").losses[1].weight == 3
    assert load(text, "student.encoder=fake/net").student.encoder.name == "fake/net"
    [found] = problems(valid, "losses.other/soft-target.weight=3")
    assert (found.path, found.hint) == ("losses.other/soft-target", "did you mean 'soft-target'?")


def test_a_qualified_name_that_two_terms_have_is_refused(valid, problems):
    twice = valid.replace("  - cross-entropy\n", "  - {name: fake/soft-target, id: a}\n  - {name: fake/soft-target, id: b}\n")
    [found] = problems(twice, "losses.fake/soft-target.weight=3")
    assert (found.path, found.hint) == ("losses.fake/soft-target", "did you mean 'soft-target'?")


def test_losses_as_one_override(load, valid):
    assert len(load(valid, "losses=[cross-entropy]").losses) == 1
    assert len(load(valid, "losses={late: null}").losses) == 2
    assert len(load(valid, "losses.late=null").losses) == 2


@pytest.mark.parametrize(
    ("override", "path", "hint"),
    [
        ("data.batch_siz=3", "data.batch_siz", "did you mean 'batch_size'?"),
        ("dta.batch_size=3", "dta", "did you mean 'data'?"),
        ("losses.lat.weight=3", "losses.lat", "did you mean 'late'?"),
        ("losses[7].weight=3", "losses[7]", "entries: cross-entropy, soft-target, late"),
        ("losses[1].temprature=3", "losses[1].temprature", "did you mean 'temperature'?"),
        ("seeds[0].x=3", "seeds[0].x", ""),
        ("teachers.gyro.transforms[0].length=3", "teachers.gyro.transforms[0]", ""),
        ("data.batch_size=many", "data.batch_size", ""),
        ("name={a: 1, a: 2}", "name", ""),
        ("name=[", "name", ""),
        ("name=!!python/name:os.system", "name", ""),
        ("seeds[3]=1", "seeds[3]", "it has 2 entries, counted from 0"),
        ("seeds.x=1", "seeds.x", "it has 2 entries, counted from 0"),
        ("extends=quickstart", "extends", "write a file that extends it"),
        ("losses[-1].weight=3", "", "entries are counted from 0; negative indices are not supported"),
        ("name", "", "write path=value, e.g. data.batch_size=32"),
        ("=3", "", "write path=value, e.g. data.batch_size=32"),
        ("a..b=3", "", "write path=value, e.g. data.batch_size=32"),
    ],
)
def test_overrides_that_lead_nowhere(problems, valid, override, path, hint):
    found = problems(valid, override)
    assert [(each.path, each.file, each.line, each.hint) for each in found] == [(path, None, None, hint)]
    assert found[0].source == "command line" or not path
