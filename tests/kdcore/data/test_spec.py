"""The spec of a signal travels from the dataset through every transform to the encoder, and into a saved student."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import toys
import yaml

from kdcore import Join, Modality
from kdcore.contracts.transform import concatenated
from kdcore.data.branch import Branch
from kdcore.data.pipeline import Pipeline
from kdcore.deploy.saved_student import load_student, save_student
from kdcore.errors import RecipeError
from kdcore.recipe.build import Builder
from kdcore.recipe.config_models import Component
from kdcore.recipe.load import load_recipe
from kdcore.recipe.plan import make_plan
from kdcore.training.assembly import Assembly

SKELETON = Modality("skeleton", ("time", "joint", "channel", "person"), ("channel", "time", "joint", "person"), "m", 30.0)
CLASSES = ("sit", "walk")


@pytest.fixture
def recipe(tmp_path):
    """A recipe for 20-joint clips of a dataset with another layout than UTD-MHAD's."""
    for person in (1, 2):
        for action in CLASSES:
            values = np.random.default_rng(person).normal(size=(20, 20, 3)).astype(np.float32)
            np.savez(tmp_path / f"{person}_{action}_1.npz", joints=values)
    tree = {
        "version": 1,
        "name": "clips",
        "data": {
            "dataset": {
                "name": "skeleton-npz",
                "root": str(tmp_path),
                "pattern": "{subject}_{action}_{trial}.npz",
                "skeleton": "nucla-20",
                "rate": 30,
                "classes": list(CLASSES),
            },
            "protocol": "cross-subject",
        },
        "student": {
            "modality": "skeleton",
            "transforms": [{"name": "resample", "length": 16}, {"name": "centre", "joint": "head"}],
            "encoder": {"name": "st-gcn", "width": 8, "depth": 3},
        },
        "losses": ["cross-entropy"],
        "schedule": {"name": "two-stage", "student": {"epochs": 1}},
    }
    (tmp_path / "clips.yaml").write_text(yaml.safe_dump(tree))

    def load(*overrides):
        return load_recipe(tmp_path / "clips.yaml", overrides)

    return load


def assembled(recipe):
    builder = Builder(recipe)
    assembly = Assembly(builder, builder.dataset(), make_plan(recipe))
    spec = recipe.student
    shape = (3, 16, 20, 1)
    return assembly, lambda: builder.encoder("student", spec, 2, shape, assembly.pipelines["student"].spec)


def chains():
    """NUCLA's and UTD-MHAD's bones, as the two datasets' papers number the joints (0-based)."""
    limbs = [(4, 5), (5, 6), (6, 7), (8, 9), (9, 10), (10, 11), (12, 13), (13, 14), (14, 15), (16, 17), (17, 18), (18, 19)]
    nucla = [*limbs, (0, 1), (1, 2), (2, 3), (2, 4), (2, 8), (0, 12), (0, 16)]
    utd = [*limbs, (0, 1), (1, 2), (2, 3), (1, 4), (1, 8), (3, 12), (3, 16)]
    return {"nucla-20": nucla, "utd-mhad-20": utd}


@pytest.mark.parametrize("skeleton", ["nucla-20", "utd-mhad-20"])
def test_the_datasets_layout_is_the_encoders_graph_and_the_transforms_joints(recipe, skeleton):
    assembly, encoder = assembled(recipe(f"data.dataset.skeleton={skeleton}"))
    graph = encoder().blocks[0].adjacency.sum(0) > 0
    bones = {(a, b) for a, b in torch.nonzero(graph).tolist() if a < b}
    assert bones == set(chains()[skeleton])
    (centre,) = assembly.pipelines["student"].branches[0].on_batches
    assert centre.joint == {"nucla-20": 3, "utd-mhad-20": 0}[skeleton]


def test_a_contradiction_is_refused_with_the_recipes_line(recipe):
    said = r"clips.yaml:\d+: student.transforms\[1\]: .*`layout` 'utd-mhad-20', but the dataset's skeleton is 'nucla-20'"
    with pytest.raises(RecipeError, match=r"student.transforms\[1\]: .*'utd-mhad-20', but .* 'nucla-20'"):
        assembled(recipe("student.transforms[1].layout=utd-mhad-20"))
    _, encoder = assembled(recipe("student.encoder.layout=utd-mhad-20"))
    with pytest.raises(RecipeError, match=r"student.encoder: .*'utd-mhad-20', but .* 'nucla-20'"):
        encoder()
    file = recipe().locate("student.transforms[1]")[0]
    file.write_text(file.read_text().replace("joint: head", "joint: head\n    layout: utd-mhad-20"))
    with pytest.raises(RecipeError, match=said):
        assembled(recipe())


def test_a_dataset_that_does_not_say_its_layout_is_not_taken_for_another(recipe):
    with pytest.raises(RecipeError, match=r"student.transforms\[1\]: .*the dataset does not define a skeleton layout"):
        assembled(recipe("data.dataset.skeleton=''"))


def test_a_layout_said_once_in_the_dataset_will_do(recipe):
    edges = [[number, number + 1] for number in range(19)]
    _, encoder = assembled(
        recipe(
            f"data.dataset.skeleton={{joints: 20, edges: {edges}, centre: 0}}",
            "student.transforms[1].joint=19",
        )
    )
    assert int((encoder().blocks[0].adjacency.sum(0) > 0).sum()) == 20 + 2 * 19


def test_a_saved_student_is_built_from_the_spec_it_was_trained_with(recipe, tmp_path):
    loaded = recipe()
    assembly, encoder = assembled(loaded)
    pipeline, network = assembly.pipelines["student"], encoder().eval()
    member = loaded.filled()["student"]
    description = {
        "classes": CLASSES,
        "in_shape": (3, 16, 20, 1),
        "encoder": member["encoder"],
        "transforms": {"skeleton": member["transforms"]},
    }
    student = load_student(save_student(tmp_path / "student", pipeline, network, description))
    x = torch.randn(2, 3, 16, 20, 1)
    with torch.no_grad():
        torch.testing.assert_close(student.model(x), network(pipeline.whole()(x)))


def chain(*names, modality=SKELETON, skeleton="utd-mhad-20"):
    """The spec after transforms of a recipe."""
    recorded = modality.renamed(modality.name, skeleton=skeleton, persons=1, channels=("x", "y", "z"))
    builder = Builder(load_recipe("quickstart"))
    specs = [Component.model_validate(each) for each in names]
    on_samples, on_batches, identity = builder.transforms("student.transforms", specs, recorded)
    return Pipeline([Branch(recorded, on_samples, on_batches, identity)]).spec


@pytest.mark.parametrize("name", ["quickstart", "sakdn"])
def test_the_recipe_of_a_run_finds_the_prepared_data_of_the_run(name):
    """A run's folder has the recipe with all defaults written out; its data must not be prepared again."""
    written = load_recipe(name)
    filled = load_recipe(written.filled())
    keys = []
    for recipe in (written, filled):
        builder = Builder(recipe)
        pipelines = Assembly(builder, builder.dataset(), make_plan(recipe)).pipelines
        keys.append({name: [branch.key for branch in pipeline.branches] for name, pipeline in pipelines.items()})
    assert keys[0] == keys[1]


def test_transforms_say_what_they_change():
    assert chain().rate == 30.0
    assert chain({"name": "resample", "rate": 20}).rate == 20.0
    assert chain({"name": "resample", "length": 16}).rate is None
    assert chain("skeleton-scale").units == "1"
    assert chain({"name": "bones", "append": True}).channels == ("x", "y", "z", "bone-x", "bone-y", "bone-z")
    flat = chain("centre", "joints-to-channels", "magnitude", "normalise")
    assert flat.layout == ("channel", "time")
    assert (flat.units, flat.skeleton, flat.persons) == ("1", "", None)
    assert len(flat.channels) == 60 + 20
    assert flat.channels[:2] == ("head-x", "shoulder-centre-x")
    image = chain("joints-to-channels", {"name": "gaf", "method": "both"})
    assert image.layout == ("channel", "height", "width")
    assert len(image.channels) == 120


def test_joined_modalities_keep_what_they_agree_on():
    wrist = toys.WRIST.renamed("wrist", channels=("x", "y"), placement="wrist")
    ankle = toys.ANKLE.renamed("ankle", channels=("x",), placement="ankle", rate=10.0)
    joined = Pipeline([toys.branch(wrist), toys.branch(ankle)]).spec
    assert joined == concatenated((wrist, ankle)) == Join().output_spec((wrist, ankle))
    assert (joined.name, joined.units, joined.rate, joined.placement) == ("wrist+ankle", "m/s^2", 10.0, "")
    assert joined.channels == ("wrist.x", "wrist.y", "ankle.x")
    assert concatenated((wrist, toys.ANKLE)).channels == ()


def test_what_a_tensors_shape_contradicts_is_not_passed_on():
    spec = SKELETON.renamed("skeleton", channels=("x", "y", "z"), persons=2)
    assert spec.matching((3, 16, 20, 2)) is spec
    assert spec.matching((6, 16, 20, 1)) == SKELETON
    assert spec.matching((60, 16)) is None
