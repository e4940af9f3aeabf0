"""Whole graphs: stored outputs in place of a live teacher, and edges that have an effect or are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from learning import same_state
from lightning_fabric import Fabric
from runs import Home, tiny_recipe
from yaml import safe_dump

from kdcore import read_run, reopen, run
from kdcore.contracts.progress import Progress
from kdcore.data.preparation import load_table
from kdcore.deploy.saved_student import WEIGHTS
from kdcore.errors import RecipeError
from kdcore.plugin.manager import plugin_manager
from kdcore.recipe.build import Builder
from kdcore.recipe.load import load_recipe
from kdcore.recipe.plan import DISTILLED, make_plan
from kdcore.runs.artifacts import restore_participants, student_folder
from kdcore.training.assembly import Assembly
from kdcore.training.checkpoint import load_weights
from kdcore.training.step import StageStep
from kdcore.training.stored_outputs import STORED, StoredOutputs, write_outputs
from kdcore.training.teacher_cache import cache_teachers

# Stored outputs


@pytest.fixture
def home(tmp_path, database, monkeypatch):
    made = Home(tmp_path / "home", database)
    made.folder.mkdir()
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


PLAIN = {
    "schedule": None,
    "training": {"epochs": 2},
    "seeds": [0],
    "baseline": False,
    "student": {
        "modality": "accelerometer",
        "transforms": [{"name": "resample", "length": 12}, "normalise"],
        "encoder": {"name": "cnn1d", "width": 4, "depth": 2},
    },
}


def finish(home, **sections):
    """The folder of a finished run of the tiny recipe."""
    tree = {key: value for key, value in (tiny_recipe(home.database, "stored") | PLAIN | sections).items() if value is not None}
    home.recipe.write_text(safe_dump(tree))
    return run(home.recipe).folder


def weights(folder):
    return load_weights(student_folder(folder, 0, "student") / WEIGHTS)


@pytest.mark.slow
def test_a_run_from_stored_outputs_ends_with_the_bits_of_the_run_with_the_teacher(home):
    live = finish(home)
    context = reopen(read_run(live))
    distiller, table = restore_participants(context, 0, DISTILLED), context.table
    fabric = Fabric(accelerator="cpu", devices=1)
    keys, pieces = [], []
    for rows in table.rows.values():
        found = cache_teachers(distiller, ["skeleton"], rows, table, context.recipe.data.batch_size, 1 << 30, fabric)
        keys += [table.keys[row] for row in rows.tolist()]
        pieces.append(found["skeleton"].at(rows).logits)
    outputs = StoredOutputs(keys, torch.cat(pieces).numpy(), table.classes)
    for suffix in STORED:
        path = home.folder / f"teacher{suffix}"
        write_outputs(path, outputs)
        stored = finish(home, teachers={"skeleton": {"outputs": str(path)}})
        assert same_state(weights(stored), weights(live)), suffix
    wrong = StoredOutputs(keys, outputs.logits[::-1].copy(), table.classes)
    write_outputs(home.folder / "wrong.npz", wrong)
    other = finish(home, teachers={"skeleton": {"outputs": str(home.folder / "wrong.npz")}})
    assert not same_state(weights(other), weights(live))


# Edges

NAMES = ("a", "b", "c", "d")


def terms_for(sources):
    """Objectives that may or may not read what their learner learns from."""
    chosen = st.none() | st.just(sources or ["a"]) | st.just([*sources, "a"][:1])
    weight = st.sampled_from([1.0, 1.0, 0.3, 0.0, {"start": 0.0, "stop": 1.0, "epochs": 2}])
    names = st.sampled_from(["soft-target", "mutual", "consistency", "cross-entropy"])
    plain = st.fixed_dictionaries({"name": st.sampled_from(["soft-target", "consistency"]), "weight": st.just(1.0)})
    read = st.fixed_dictionaries({"name": names, "weight": weight}, optional={"teachers": chosen})
    if not sources:
        return (st.just([]) | st.just([]) | st.lists(read, max_size=1)).map(
            lambda found: [{"name": "cross-entropy", "id": "labels"}, *found]
        )
    objective = st.lists(plain, min_size=1, max_size=2) | st.lists(plain, min_size=1, max_size=1) | st.lists(read, max_size=2)
    return objective.map(lambda found: [{"name": "cross-entropy", "id": "labels"}, *found])


@st.composite
def graphs(draw):
    """Students of one modality with random edges and objectives."""
    students = {}
    names = NAMES[: draw(st.integers(2, 4))]
    circles = draw(st.booleans())
    for number, name in enumerate(names):
        others = [each for each in (names if circles else names[:number]) if each != name]
        sources = draw(st.lists(st.sampled_from(others), max_size=2, unique=True)) if others else []
        students[name] = {
            "modality": "accelerometer",
            "transforms": [{"name": "resample", "length": 12}],
            "encoder": {"name": "cnn1d", "width": 2, "depth": 1, "dropout": 0, "norm": "none"},
            "learns_from": sources,
            "losses": draw(terms_for(sources)),
        }
    return students


def loss_of(step, rows, learner):
    """The learner's objective late in training, when every ramp has risen."""
    step.progress = dict.fromkeys(step.progress, Progress(epoch=5, epochs=6))
    found = [context.progress.at(term.spec.weight) * term.loss(context) for term, context in step.contexts(rows, rows)
             if term.learner == learner]  # fmt: skip
    return float(sum(found))


@pytest.fixture(scope="module")
def seen():
    """The number of graphs that were accepted and refused, so that neither is an accident."""
    counts = {"accepted": 0, "refused": 0, "edges": 0}
    yield counts
    assert counts["accepted"] > 5, counts
    assert counts["refused"] > 5, counts
    assert counts["edges"] > 5, counts


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """One table for all graphs: every participant reads the same."""
    return {"cache": tmp_path_factory.mktemp("cache"), "file": tmp_path_factory.mktemp("recipe") / "recipe.yaml"}


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(graphs())
def test_a_declared_edge_has_an_effect_or_is_refused(loaded, seen, students):
    tree = tiny_recipe(loaded["cache"] / "x.db", "edges") | {"students": students, "training": {"epochs": 6}, "seeds": [0]}
    for key in ("teachers", "student", "losses", "schedule"):
        tree.pop(key)
    loaded["file"].write_text(safe_dump(tree))
    plugins = plugin_manager()
    try:
        recipe = load_recipe(loaded["file"], [], plugins)
    except RecipeError:
        seen["refused"] += 1
        return
    seen["accepted"] += 1
    builder = Builder(recipe, plugins)
    dataset, plan = builder.dataset(), make_plan(recipe)
    assembly = Assembly(builder, dataset, plan)
    if "table" not in loaded:
        data = recipe.filled_data
        loaded["table"] = load_table(dataset, builder.protocol(), data, assembly.pipelines, loaded["cache"], data.memory_bytes)
    first = next(iter(loaded["table"].inputs.values()))
    table = replace(loaded["table"], inputs=dict.fromkeys(NAMES, first))
    for stage in plan.stages[DISTILLED]:
        for learner in stage.learners:
            for source in students[learner]["learns_from"]:
                distiller = assembly.distiller(table, 0, DISTILLED, torch.device("cpu")).eval()
                step, rows = StageStep(distiller, stage, table, True), table.rows["train"]
                before = loss_of(step, rows, learner)
                head = distiller.participant(source).encoder.fc
                head.weight.data.neg_()  # turns its classes around
                head.bias.data.add_(torch.tensor([5.0, -5.0, 0.0]))
                seen["edges"] += 1
                assert loss_of(step, rows, learner) != before, f"{learner} learns from {source} without effect: {students}"


@pytest.mark.parametrize(
    "term", [{"name": "soft-target", "weight": 0.0}, {"name": "cross-entropy", "id": "again", "teachers": ["a"]}]
)
def test_an_edge_that_only_such_a_term_would_read_is_refused(loaded, term):
    network = {"modality": "accelerometer", "transforms": [{"name": "resample", "length": 12}], "encoder": "cnn1d"}
    students = {"a": {**network, "losses": ["cross-entropy"]}}
    students["b"] = {**network, "learns_from": ["a"], "losses": ["cross-entropy", term]}
    tree = tiny_recipe(loaded["cache"] / "x.db", "edges") | {"students": students}
    for key in ("teachers", "student", "losses", "schedule"):
        tree.pop(key)
    loaded["file"].write_text(safe_dump(tree))
    with pytest.raises(RecipeError, match="no term of 'b' reads 'a', so learning from it has no effect"):
        load_recipe(loaded["file"], [], plugin_manager())
