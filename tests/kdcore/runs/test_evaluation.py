"""Evaluating a finished run again: the same samples, the same numbers, or a line that says why not."""

from __future__ import annotations

from importlib.metadata import entry_points
from types import SimpleNamespace

import numpy as np
import pytest
from runs import encoder, tiny_recipe

from kdcore.errors import CheckpointError, PluginError
from kdcore.plugin.manager import PluginManager
from kdcore.runs.evaluation import Recordings, _differ, evaluate_run, with_ensembles
from kdcore.runs.outcome import read_outcome
from kdcore.runs.paths import find_run, recipe_name
from kdcore.runs.records import recipe_of

LOSSES, DATASETS = ("losses", "schedules"), ("datasets",)
RESAMPLE = [{"name": "resample", "length": 12}]


@pytest.fixture(scope="module")
def windowed(tmp_path_factory):
    """A run on windows, whose teacher's skeleton begins later and ends earlier than the student's accelerometer."""
    from runs import Home

    folder = tmp_path_factory.mktemp("windowed")
    home = Home(folder / "home", folder / "mlflow.db")
    data = tiny_recipe(home.database, "unused")["data"] | {"window": {"length": 0.5, "hop": 0.04}}
    home.write(
        data=data,
        student={"modality": "accelerometer", "transforms": RESAMPLE, "encoder": encoder()},
        seeds=[0],
        baseline=False,
        schedule={"name": "two-stage", "teachers": {"epochs": 1}, "student": {"epochs": 1}},
    )
    assert home.run() == 0, home.said()
    return home


@pytest.mark.slow
def test_the_windows_are_those_of_the_run(windowed):
    [run] = windowed.runs
    outcome = read_outcome(run / "results" / "seed-0-distilled.npz")
    recordings = Recordings(run)
    pieces = list(recordings.pieces("test", ["accelerometer"]))
    assert sorted(piece.key for piece in pieces) == sorted(outcome.keys)
    own = sum(len(clocks(recordings, sample)) for sample in recordings.splits.samples["test"])
    assert own > len(outcome.keys), "the student's own clock gives as many windows here, so this shows nothing"
    [line] = evaluate_run(str(run))
    accuracy = (outcome.probabilities["student"].argmax(1) == outcome.labels).mean()
    assert line.startswith(f"seed-0 student: accuracy {100 * accuracy:.1f} %  ")
    assert line.endswith(f"  n {len(outcome.labels)}")


def clocks(recordings, sample, length=0.5, hop=0.04):
    """Windows by the accelerometer alone."""
    clock = recordings.dataset.read(sample, "accelerometer").clock
    span = clock[-1] + 1 / 50 - clock[0]
    return [start for start in np.arange(0, 100) * hop if start + length <= span + 1e-9]


@pytest.mark.slow
def test_plugins_of_losses_and_schedules_may_be_gone(windowed, monkeypatch):
    """Evaluation needs the dataset, the protocol, and what the student is made of."""
    [run] = windowed.runs
    expected = list(evaluate_run(str(run)))
    without = {gone: [each for each in entry_points(group="kdcore") if each.name not in gone] for gone in (LOSSES, DATASETS)}
    monkeypatch.setattr("kdcore.runs.evaluation.plugin_manager", lambda: PluginManager(without[LOSSES]))
    assert list(evaluate_run(str(run))) == expected
    with pytest.raises(PluginError, match=r"used plugin losses .* and plugin schedules"):
        recipe_of(run, PluginManager(without[LOSSES]))
    monkeypatch.setattr("kdcore.runs.evaluation.plugin_manager", lambda: PluginManager(without[DATASETS]))
    with pytest.raises(PluginError, match=r"used plugin datasets .*, which is not installed here"):
        list(evaluate_run(str(run)))


@pytest.mark.slow
def test_results_that_differ_from_the_runs_are_said(windowed, tmp_path):
    [run] = windowed.runs
    file = run / "results" / "seed-0-distilled.npz"
    before = file.read_bytes()
    with np.load(file) as found:
        arrays = dict(found)
    arrays["probabilities.student"] = np.roll(arrays["probabilities.student"], 1, axis=1)
    try:
        np.savez(file, **arrays)
        first, _ = evaluate_run(str(run))
        assert "probabilities differ by up to" in first
    finally:
        file.write_bytes(before)
    with pytest.raises(CheckpointError, match="no run"):
        list(evaluate_run(str(tmp_path / "nowhere")))


def test_a_run_is_found_by_its_recipes_name(tmp_path, monkeypatch):
    monkeypatch.setenv("KDCORE_RUNS", str(tmp_path))
    ids = [
        "20260101-000000-tiny-abcdef",
        "20260102-000000-tiny-abcdef",
        "20260102-000000-tiny-abcdef-2",
        "20260102-000000-tiny-abcdef-10",
        "20260103-000000-utd-mhad-pskd-012345",
        "20260104-000000-other-tiny-abcdef",
    ]
    for name in ids:
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.yaml").write_text("")
    assert find_run("tiny").name == "20260102-000000-tiny-abcdef-10"
    assert find_run("utd-mhad/pskd").name == find_run("utd-mhad-pskd").name == ids[4]
    assert find_run("tiny.yaml").name == "20260102-000000-tiny-abcdef-10"
    assert find_run("20260101").name == ids[0]
    assert find_run("other-tiny").name == ids[5]
    with pytest.raises(CheckpointError, match="several runs"):
        find_run("20260102")
    assert recipe_name("20260102-000000-a-b-abcdef-2") == "a-b"
    assert recipe_name("a-b") == ""


@pytest.mark.slow
def test_ensembles_combine_the_predictions_of_the_same_samples():
    """Where each student lacks another sample, so that both have predicted equally many."""
    outcome = SimpleNamespace(members=["a", "b"], ensembles={"mean": "average"}, target=SimpleNamespace(is_classes=True))
    of_a = {"one": [1.0, 0.0], "two": [0.5, 0.5], "three": [0.0, 1.0]}
    of_b = {"two": [0.25, 0.75], "three": [1.0, 0.0], "four": [0.0, 1.0]}
    outputs = {name: np.array(list(each.values())) for name, each in (("a", of_a), ("b", of_b))}
    found = with_ensembles(outputs, {"a": list(of_a), "b": list(of_b)}, outcome)
    mean, samples = found["mean"]
    assert samples == ["two", "three"]
    np.testing.assert_allclose(mean, [[0.375, 0.625], [0.5, 0.5]])
    assert found["b"][1] == ["two", "three", "four"]
    apart = {"a": ["one", "two", "three"], "b": ["four", "five", "six"]}
    assert with_ensembles(outputs, apart, outcome).keys() == {"a", "b"}


def test_labels_that_are_others_now_are_said(windowed, monkeypatch):
    [run] = windowed.runs
    pieces = Recordings.pieces

    def changed(self, split, modalities):
        for number, piece in enumerate(pieces(self, split, modalities)):
            yield piece._replace(label=(piece.label + 1) % 3) if number < 5 else piece

    before = [*evaluate_run(str(run))]
    monkeypatch.setattr(Recordings, "pieces", changed)
    said, *after = evaluate_run(str(run))
    assert said.startswith("seed-0: 5 of ")
    assert said.endswith(" samples have different labels now; those of the run are used")
    assert after == before


@pytest.mark.parametrize(
    ("now", "then", "differ"),
    [
        (0, 1, False),  # another order of the same classes
        (1, 1, True),
        (None, -1, False),
        (None, 0, True),
        (0, -1, True),
        ((1.0, 2.5), (1.0, 2.5), False),
        ((1.0, 2.6), (1.0, 2.5), True),
        (None, (np.nan, np.nan), False),
        (None, (1.0, 1.0), True),
    ],
)
def test_labels_are_compared_by_name_and_by_number(now, then, differ):
    recordings = SimpleNamespace(dataset=SimpleNamespace(classes=["walk", "sit"]))
    facts = SimpleNamespace(classes=["sit", "walk"])
    then = np.float32(then) if isinstance(then, tuple) else np.array([then])[0]
    assert _differ(now, then, recordings, facts) == differ
