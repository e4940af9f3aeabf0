from __future__ import annotations

import shutil
from importlib.metadata import entry_points, version

import pytest

from kdcore import finished_runs, read_run
from kdcore.errors import CheckpointError, PluginError
from kdcore.plugin.manager import PluginManager
from kdcore.recipe.load import load_recipe
from kdcore.runs.records import recipe_of
from kdcore.runs.setting import setting


@pytest.fixture
def run_of(uninterrupted, monkeypatch):
    for name, value in uninterrupted.environment.items():
        monkeypatch.setenv(name, value)
    return uninterrupted.runs[0]


def test_a_run_is_read_back(run_of):
    found = read_run(run_of.name)
    assert set(found.outcomes) == {"distilled", "baseline"}
    assert set(found.outcomes["distilled"]) == {0, 1}
    assert found.facts.counts == {"train": 9, "validation": 9, "test": 9}
    assert found.facts.selection == {"skeleton": "best", "student": "last"}
    assert found.facts.modalities == {"skeleton": ["skeleton"], "student": ["accelerometer"]}
    assert {"kdcore", "python", "torch", "numpy", "plugin losses"} <= set(found.facts.versions)
    assert found.outcomes["distilled"][0].memory > 1 << 20


def test_a_variant_is_found_whatever_its_name_seeds_and_baseline(run_of):
    recipe = load_recipe(run_of / "recipe.yaml", ["seeds=[7]", "name=other", "baseline=false"])
    assert [run.folder for run in finished_runs(recipe.variant)] == [run_of]
    other = load_recipe(run_of / "recipe.yaml", ["losses.soft-target.weight=0.5"])
    assert not list(finished_runs(other.variant))
    assert not list(finished_runs(recipe.variant, split="validation"))


def test_an_unfinished_run_is_named(run_of, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run_of, copy)
    (copy / "results" / "seed-1-baseline.npz").unlink()
    with pytest.raises(CheckpointError, match=r"seed-1-baseline\.npz is missing"):
        read_run(copy)
    (copy / "run.json").unlink()
    with pytest.raises(CheckpointError, match="not a finished run"):
        read_run(copy)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["data.label_noise=0.3"], " 30 % of the training labels are wrong. 2 seeds."),
        (
            ["data.labels=withheld", "losses.cross-entropy=null", "schedule.teacher_split=teacher"],
            "9 test samples. Students were trained without labels. 2 seeds.",
        ),
        ([], "9 test samples. 2 seeds."),
    ],
)
def test_the_report_says_what_was_done_to_labels(run_of, options, said):
    recipe = load_recipe(run_of / "recipe.yaml", options)
    assert setting(recipe, read_run(run_of).facts).endswith(said)


def test_a_plugin_that_is_gone_is_named_with_the_version_that_there_was(run_of):
    points = [point for point in entry_points(group="kdcore") if point.name != "signals"]
    said = rf"{run_of.name} used plugin signals {version('kdcore')}, which is not installed here; install it to continue"
    with pytest.raises(PluginError, match=said):
        recipe_of(run_of, PluginManager(points))
    assert recipe_of(run_of).name == "tiny"
