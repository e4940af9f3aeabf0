"""Encoders that compare with class embeddings get those of the recipe by class name, and saved students keep them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kdcore import RecipeError, load_recipe, load_student, plugin_manager, run
from kdcore.recipe.build import Builder
from kdcore.recipe.plan import make_plan

PLUGIN = """
import torch
from pathlib import Path
from kdcore import Transform, hookimpl
from torch import nn
from torch.nn import functional as F


class Nearest(nn.Module):
    def __init__(self, num_classes: int, in_shape: tuple[int, ...], class_embeddings: torch.Tensor, *, kept: bool = True):
        super().__init__()
        if kept:
            self.register_buffer("class_embeddings", class_embeddings)
        self.fc = nn.Linear(in_shape[0], class_embeddings.shape[1])

    def forward(self, x):
        return F.normalize(self.fc(x.mean(-1)), dim=1) @ F.normalize(self.class_embeddings, dim=1).T


class FromFile(nn.Module):
    def __init__(self, num_classes: int, in_shape: tuple[int, ...], *, file: Path, start: Path | None = None):
        super().__init__()
        self.fc = nn.Linear(in_shape[0], num_classes)


class Filtered(Transform):
    def __init__(self, *, taps: Path | None = None):
        super().__init__()

    def forward(self, x):
        return x


@hookimpl
def register_encoders(register):
    register("nearest", "embedded:Nearest")
    register("from-file", "embedded:FromFile")


@hookimpl
def register_transforms(register):
    register("filtered", "embedded:Filtered")
"""


@pytest.fixture
def embedded(home):
    """A home whose plugin has an encoder that reads class embeddings, and a matrix in another order than the classes."""
    home.write(
        seeds=[0],
        teachers=None,
        losses=["cross-entropy"],
        schedule={"name": "two-stage", "student": {"epochs": 1}},
        plugins=["embedded.py"],
        class_embeddings={"name": "matrix", "path": "words.npy", "names": "names.txt"},
        student={"modality": "accelerometer", "transforms": [{"name": "resample", "length": 32}], "encoder": "nearest"},
    )
    (home.folder / "embedded.py").write_text(PLUGIN)
    np.save(home.folder / "words.npy", np.random.default_rng(0).normal(size=(4, 7)).astype(np.float32))
    (home.folder / "names.txt").write_text("sit down\nwave\njump\npunch\n")
    return home


def test_an_encoder_gets_the_embeddings_of_the_classes_and_a_saved_student_keeps_them(embedded):
    result = run(embedded.recipe)
    words = torch.from_numpy(np.load(embedded.folder / "words.npy"))
    (embedded.folder / "words.npy").unlink()  # a student needs no other file
    student = load_student(result.folder / "students/seed-0/student", plugin_manager())
    assert list(student.classes) == ["wave", "punch", "sit down"]
    x = torch.randn(5, 3, 32)
    fc = student.model.encoder.fc
    features = x.mean(-1) @ fc.weight.T + fc.bias
    expected = torch.stack([F.cosine_similarity(features, words[row]) for row in (1, 3, 0)], dim=1)
    torch.testing.assert_close(student(x), expected)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["class_embeddings=null"],
            r"recipe\.yaml:\d+: student\.encoder: the encoder 'nearest' needs class embeddings, .*\(add",
        ),
        (["student.encoder={name: nearest, kept: false}"], "'nearest' must register its class embeddings as the buffer"),
    ],
)
def test_an_encoder_without_embeddings_or_that_would_lose_them_is_refused(embedded, overrides, said):
    recipe = load_recipe(embedded.recipe, overrides)
    spec = make_plan(recipe).participants["student"].spec
    table = None if "null" in overrides[0] else torch.ones(3, 7)
    with pytest.raises(RecipeError, match=said):
        Builder(recipe).encoder("student", spec, 3, (3, 32), class_embeddings=table)


def test_other_numbers_of_classes_get_rows_of_their_own_so_that_heads_are_recognised(embedded):
    recipe = load_recipe(embedded.recipe)
    spec = make_plan(recipe).participants["student"].spec
    encoder = Builder(recipe).encoder("student", spec, 4, (3, 32), class_embeddings=torch.ones(3, 7))
    assert torch.equal(encoder.class_embeddings, torch.zeros(4, 7))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "student.encoder={name: from-file, file: words.npy}",
            "the encoder 'from-file' of a student requires the file of its option",
        ),
        (
            "student.transforms=[{name: filtered, taps: words.npy}]",
            "the transform 'filtered' of a student requires the file of its",
        ),
    ],
)
def test_a_student_that_could_not_be_loaded_again_is_refused_at_validation(embedded, override, said):
    with pytest.raises(RecipeError, match=said):
        load_recipe(embedded.recipe, [override])
    teacher = override.replace("student", "teachers.other")
    words = [teacher, "teachers.other.modality=accelerometer", "losses=[cross-entropy, soft-target]"]
    words += [] if "encoder" in override else ["teachers.other.encoder=cnn1d"]
    load_recipe(embedded.recipe, words)  # a teacher is not saved as a student


def test_first_weights_and_options_that_are_not_set_are_no_files_of_a_student(embedded):
    load_recipe(embedded.recipe, ["student.transforms=[{name: filtered, taps: null}]"])
