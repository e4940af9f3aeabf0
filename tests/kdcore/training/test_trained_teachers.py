"""Teachers trained once: the same bits as training them again, and never another training's."""

from __future__ import annotations

import importlib
import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import toys
from learning import Labels, students, teachers
from lightning_fabric import Fabric
from torch.nn import functional as F

import kdcore
from kdcore import DistillationLoss, Example, Needs, StoppedError
from kdcore.data.pipeline import Pipeline
from kdcore.recipe.plan import make_plan
from kdcore.runs.arms import trained_stages
from kdcore.training.engine import Engine, Settings
from kdcore.training.participants import Distiller, TermSpec
from kdcore.training.trained_teachers import TrainedStages, _code_of, _digest, stage_lock

TEACH = teachers(select="best")
LEARN = students()


class Imitate(DistillationLoss):
    needs = Needs(teachers=1)

    def forward(self, ctx):
        return F.mse_loss(ctx.student.logits, ctx.teachers["teacher"].logits)


@pytest.fixture
def table(tmp_path):
    (tmp_path / "data").mkdir()
    pipelines = {"teacher": Pipeline([toys.branch(toys.ANKLE)]), "student": Pipeline([toys.branch()])}
    return toys.table(toys.Files(toys.write(tmp_path / "data", trials=3)), pipelines, tmp_path / "cache")


def train(table, store, stages=(TEACH, LEARN), teacher_seed=1):
    """All weights and everything tracked, and which stages were reused."""
    team = {"teacher": toys.participant("teacher", 3, seed=teacher_seed), "student": toys.participant("student", 2, seed=2)}
    made = Distiller({"teacher": team["teacher"]}, {"student": team["student"]}).eval()
    for name, loss in (("teacher", Labels), ("student", Imitate)):
        example = Example(made("student", table.batch(torch.arange(2), ["student"])))
        sources = ("teacher",) if name == "student" else ()
        made.add_terms(name, [TermSpec("term", 1.0, loss, sources)], lambda _, example=example: example)
    tracked, reused = [], []
    engine = Engine(
        Fabric(accelerator="cpu", devices=1),
        made,
        table,
        Settings(3, 3),
        lambda metrics, step: tracked.append((dict(metrics), step)),
        trained=store,
    )
    engine.listener.stage_reused = lambda stage: reused.append(stage.name)
    engine.fit(stages)
    return {name: tensor.clone() for name, tensor in made.state_dict().items()}, tracked, reused


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(3)[:0],
        torch.tensor(1.5),
        torch.arange(6).view(2, 3).T,
        torch.ones(1, dtype=torch.bfloat16).as_strided((1,), (0,)),
    ],
)
def test_any_tensor_has_a_digest_of_its_own(tensor):
    assert _digest(tensor) == _digest(tensor.clone()) != _digest(torch.cat([tensor.flatten(), tensor.new_ones(1)]))


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_reused_teacher_leads_to_the_same_bits_and_the_same_history(table, tmp_path):
    weights, tracked, _ = train(table, None)
    store = TrainedStages(tmp_path / "kept", {"recipe": 1})
    first, second = train(table, store), train(table, store)
    assert (first[2], second[2]) == ([], ["teachers"])
    for each in (first, second):
        assert same(each[0], weights)
        assert each[1] == tracked


def test_whatever_would_change_the_teacher_makes_it_train_again(table, tmp_path):
    folder = tmp_path / "kept"
    train(table, TrainedStages(folder, {"recipe": 1}))
    other_labels = replace(table, train_labels=torch.where(table.train_labels < 0, table.train_labels, 1 - table.train_labels))
    shifted = replace(table, inputs={**table.inputs, "teacher": (table.inputs["teacher"][0] + 1e-6,)})
    weighted = replace(table, weights=torch.ones(len(table.keys)))
    otherwise = replace(table, weights=torch.arange(1.0, len(table.keys) + 1))
    renamed = replace(table, classes=table.classes[::-1])
    held_out = table.labels.clone()
    held_out[table.rows["validation"]] = 1 - held_out[table.rows["validation"]]
    longer = teachers(epochs=3, select="best")
    store = TrainedStages(folder, {"recipe": 1})
    assert train(table, TrainedStages(folder, {"recipe": 2}))[2] == []
    assert train(other_labels, store)[2] == []
    assert train(shifted, store)[2] == []
    assert train(weighted, store)[2] == []
    assert train(otherwise, store)[2] == []
    assert train(renamed, store)[2] == []
    assert train(replace(table, labels=held_out), store)[2] == [], "they choose the epoch"
    assert train(table, store, (longer, LEARN))[2] == []
    assert train(table, store, teacher_seed=5)[2] == []
    assert train(table, store)[2] == ["teachers"]


def test_teachers_that_learn_by_turns_are_not_kept(table, tmp_path):
    store = TrainedStages(tmp_path / "kept", {})
    turns = [replace(TEACH, epochs=1), replace(LEARN, epochs=1)] * 2
    train(table, store, turns)
    assert not (tmp_path / "kept").exists()


def test_of_two_runs_that_need_a_teacher_one_trains_it_and_the_other_waits(table, tmp_path):
    store = TrainedStages(tmp_path / "kept", {})
    train(table, store)
    [key] = [each.name for each in (tmp_path / "kept").iterdir()]
    holding, released, reused = threading.Event(), threading.Event(), []

    def hold():
        with stage_lock(store, key, lambda: False):
            holding.set()
            released.wait(10)

    threads = [threading.Thread(target=hold), threading.Thread(target=lambda: reused.extend(train(table, store)[2]))]
    threads[0].start()
    holding.wait(10)
    threads[1].start()
    threads[1].join(0.3)
    assert threads[1].is_alive()
    assert not reused
    with pytest.raises(StoppedError), stage_lock(store, key, lambda: True):
        pass
    released.set()
    for thread in threads:
        thread.join(30)
    assert reused == ["teachers"]


def test_what_was_kept_and_is_damaged_is_trained_again(table, tmp_path):
    store = TrainedStages(tmp_path / "kept", {})
    weights, *_ = train(table, store)
    for file in (tmp_path / "kept").rglob("weights.safetensors"):
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    again, _, reused = train(table, store)
    assert not reused
    assert same(again, weights)


def test_other_code_makes_teachers_train_again(table, tmp_path, monkeypatch):
    store = TrainedStages(tmp_path / "kept", {})
    train(table, store)
    (tmp_path / "package").mkdir()
    for name, text in (("__init__", ""), ("network", "import torch\n\nclass Network(torch.nn.Module):\n    pass\n")):
        (tmp_path / "package" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    network = importlib.import_module("package.network").Network()
    codes = [_code_of([network])]
    (tmp_path / "package" / "__init__.py").write_text("# edited")
    codes.append(_code_of([network]))
    assert codes[0].keys() == codes[1].keys() == {str(tmp_path / "package"), str(Path(kdcore.__file__).parent)}
    assert codes[0] != codes[1]
    monkeypatch.setattr("kdcore.training.trained_teachers._code_of", lambda modules: codes[1])
    assert train(table, store)[2] == []
    assert train(table, store)[2] == ["teachers"]


def test_whatever_the_recipe_says_of_teachers_tells_them_apart():
    def identity(*changes, seed=0):
        plan = make_plan(kdcore.load_recipe("quickstart", ["engine.reuse_teachers=true", *changes]))
        return json.dumps(trained_stages(plan, seed, False).identity, sort_keys=True, default=str)

    same = identity()
    assert identity("student.encoder.width=8", "losses.soft-target.temperature=2", "name=other") == same
    changes = [
        "teacher_losses=[{name: cross-entropy, label_smoothing: 0.1}]",
        "data.sampler=balanced",
        "data.mix={name: mixup, learners: all}",
        "data.batch_size=7",
        "teachers.skeleton.encoder.width=8",
        "engine.precision=bf16-mixed",
    ]
    assert len({same, identity(seed=1), *map(identity, changes)}) == len(changes) + 2
    assert trained_stages(make_plan(kdcore.load_recipe("quickstart", ["engine.reuse_teachers=true"])), 0, True) is None


def test_a_file_that_the_recipe_names_for_a_teacher_counts_by_its_content(tmp_path):
    weights, found = tmp_path / "weights.safetensors", []
    for content in (b"one", b"two", b"one"):
        weights.write_bytes(content)
        recipe = kdcore.load_recipe("quickstart", ["engine.reuse_teachers=true", f"teachers.skeleton.weights={weights}"])
        found.append(json.dumps(trained_stages(make_plan(recipe), 0, False).identity, sort_keys=True, default=str))
    assert found[0] != found[1]
    assert found[0] == found[2]
