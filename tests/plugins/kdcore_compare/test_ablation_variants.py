from __future__ import annotations

import pytest
import yaml
from runs import tiny_recipe

from kdcore import KdcoreError, load_recipe
from kdcore_compare.ablation_variants import variants_of


@pytest.fixture
def written(tmp_path):
    """Writes the tiny recipe with some sections replaced."""

    def write(**sections):
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(tiny_recipe(tmp_path / "mlflow.db", "tiny", **sections)))
        return str(path)

    return write


def labels(found):
    return [each.label for each in found]


def test_parts_of_a_recipe(written):
    terms = ["cross-entropy", "soft-target", {"name": "logits", "weight": 0.1}]
    found = variants_of(written(losses=terms))
    assert labels(found) == [
        "full recipe",
        "without cross-entropy",
        "without soft-target",
        "without logits",
        "baseline",
        "teacher skeleton",
    ]
    assert len({each.overrides for each in found}) == 4  # student and teachers alone come from the runs of the whole
    assert found[4].overrides == found[5].overrides == found[0].overrides


def test_copies_have_no_mean_with_the_teacher(written):
    copy = {"like": "student", "starts_from": "student", "freeze": ["*"]}
    teachers = {**tiny_recipe("", "")["teachers"], "first": copy, "second": copy}
    assert labels(variants_of(written(teachers=teachers)))[-3:] == ["teacher first", "teacher second", "teacher skeleton"]


def test_without_its_only_distillation_a_student_is_alone(written):
    assert labels(variants_of(written())) == ["full recipe", "without cross-entropy", "baseline", "teacher skeleton"]


def test_every_variant_is_its_own_recipe_in_one_experiment(written):
    path = written(losses=["cross-entropy", "soft-target", "logits"])
    found = [load_recipe(path, each.overrides) for each in variants_of(path)]
    assert {each.tracking.experiment for each in found} == {"tiny"}
    assert [[term.id for term in each.losses] for each in found[:4]] == [
        ["cross-entropy", "soft-target", "logits"],
        ["soft-target", "logits"],
        ["cross-entropy", "logits"],
        ["cross-entropy", "soft-target"],
    ]
    assert [each.baseline for each in found[:4]] == [True, False, False, False]
    name = f"tiny-{load_recipe(path).variant[:6]}"
    assert [each.tracking.tags for each in found[:2]] == [
        {"ablation": name, "variant": "full recipe"},
        {"ablation": name, "variant": "without cross-entropy"},
    ]


def test_fusion_teacher_terms_and_schedule_are_parts_too(written):
    path = written(
        teacher_losses=["cross-entropy", {"name": "cross-entropy", "id": "smooth", "label_smoothing": 0.1}],
        schedule={"name": "progressive", "rounds": 3, "k": 2, "student": {"gradient_clip": 1.0}},
    )
    found = variants_of(path, ["losses.soft-target.weight=0.5"])
    assert labels(found)[2:5] == ["without teachers' cross-entropy", "without teachers' smooth", "two-stage schedule"]
    schedule = load_recipe(path, found[4].overrides).schedule
    assert schedule.name == "two-stage"
    assert (schedule.options["teachers"]["epochs"], schedule.options["student"]["epochs"]) == (3, 6)
    assert schedule.options["student"]["gradient_clip"] == 1.0


def test_terms_out_of_the_objective_are_no_parts(written):
    path = written(losses=["cross-entropy", "soft-target", {"name": "logits", "weight": 0.0}])
    assert "without logits" not in labels(variants_of(path))


def test_what_cannot_be_run_is_said(written):
    path = written(teachers=tiny_recipe("", "")["teachers"], losses=["cross-entropy", "soft-target"])
    found = variants_of(path, ["losses=[{name: soft-target}, {name: cross-entropy, id: other}]"])
    assert not any(each.impossible for each in found)
    with pytest.raises(KdcoreError, match="nothing to ablate"):
        variants_of(path, ["losses=[cross-entropy]"])
