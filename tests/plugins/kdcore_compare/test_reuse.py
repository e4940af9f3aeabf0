"""Finished runs are reused only while nothing has changed that their numbers depend on."""

from __future__ import annotations

import json

import pytest
from made_up import made_up
from quick import QUICK, runs_of
from runs import Home
from sensor_recordings import sensor_sections, write_recordings

from kdcore import KdcoreError, Provenance, RunListener, load_recipe
from kdcore.runs.state import RunState
from kdcore_compare import ensure_runs as module
from kdcore_compare import selection
from kdcore_compare.ensure_runs import ensure_runs, interrupted_run, missing_seeds, reusable_runs
from kdcore_compare.selection import select

NOW = Provenance("abc", {}, {"kdcore": "0.1.0"}, {"kdcore": "c0"})
UNCHANGED = {"fingerprint": "abc", "versions": {"kdcore": "0.1.0"}, "code": {"kdcore": "c0"}}
CHANGED = {
    "the recordings have changed (fingerprint xyz, now abc)": {"fingerprint": "xyz"},
    "kdcore was 0.0.9, now 0.1.0": {"versions": {"kdcore": "0.0.9"}},
    "the code of kdcore has changed": {"code": {"kdcore": "edited"}},
    "plugin losses was 0.9, now not used": {"versions": {"kdcore": "0.1.0", "plugin losses": "0.9"}},
}


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("KDCORE_RUNS", str(tmp_path / "runs"))
    for each in (module, selection):
        monkeypatch.setattr(each, "provenance_of", lambda recipe: NOW)
    return load_recipe("quickstart", ["seeds=[0,1]"])


def finished(tmp_path, recipe, name="one", **facts):
    return made_up(tmp_path / "runs" / name, {0: 10, 1: 12}, {0: 9, 1: 9}, name, variant=recipe.variant, **facts)


def test_an_unchanged_run_is_reused(tmp_path, recipe):
    finished(tmp_path, recipe, **UNCHANGED)
    assert [each.folder.name for each in reusable_runs(recipe)] == ["one"]
    assert missing_seeds(recipe) == []
    assert select(["quickstart"])[0].values("accuracy") == [0.5, 0.6]


@pytest.mark.parametrize(("reason", "facts"), CHANGED.items(), ids=list(CHANGED))
def test_a_run_under_other_conditions_is_not_reused_and_the_reason_is_given(tmp_path, recipe, monkeypatch, reason, facts):
    finished(tmp_path, recipe, **{**UNCHANGED, **facts})
    assert missing_seeds(recipe) == [0, 1]
    with pytest.raises(KdcoreError) as refused:
        select(["quickstart"])
    assert "no finished run that is up to date: kdcore run quickstart" in str(refused.value)
    assert f"one is left out: {reason}" in str(refused.value)

    said, trained = [], []
    monkeypatch.setattr(module, "run", lambda *arguments, **_: trained.append(arguments[1]))
    ensure_runs("quickstart", ["seeds=[0,1]"], "test", RunListener(), said.append)
    assert trained == [["seeds=[0,1]", "seeds=[0, 1]"]]
    assert said == [f"one is not reused: {reason}"]


def test_a_comparison_takes_what_is_up_to_date_alone(tmp_path, recipe, capsys):
    finished(tmp_path, recipe, "stale", **{**UNCHANGED, "fingerprint": "xyz"})
    made_up(tmp_path / "runs" / "new", {2: 18}, {2: 9}, "new", variant=recipe.variant, **UNCHANGED)
    assert select(["quickstart"])[0].values("accuracy") == [0.9]
    assert "stale is left out: the recordings have changed" in capsys.readouterr().err


def test_a_comparison_without_the_recordings_says_that_they_were_not_checked(tmp_path, recipe, monkeypatch, capsys):
    def gone(recipe):
        raise selection.DataError("/data: no such folder")

    monkeypatch.setattr(selection, "provenance_of", gone)
    finished(tmp_path, recipe)
    assert len(select(["quickstart"])[0].observations) == 2
    assert "could not check if the recordings have changed since: /data: no such folder" in capsys.readouterr().err


def test_an_interrupted_run_is_resumed_only_if_nothing_has_changed(tmp_path, recipe):
    folder = finished(tmp_path, recipe, f"20260101-000000-quickstart-{recipe.hash[:6]}", **UNCHANGED)
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    said = []
    assert interrupted_run(recipe, "test", NOW, said.append) is None, "nothing says how far the run got"
    RunState().write(folder)
    unfinished = folder.rename(folder.with_name(f".{folder.name}.part"))
    assert interrupted_run(recipe, "test", NOW, said.append) is None, "a folder that is not complete is no run"
    unfinished.rename(folder)
    assert interrupted_run(recipe, "test", NOW, said.append) == folder
    facts = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**facts, "fingerprint": "xyz"}))
    assert interrupted_run(recipe, "test", NOW, said.append) is None
    assert said == [f"{folder.name} is not resumed: the recordings have changed (fingerprint xyz, now abc)"]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["ablate", "sweep"])
def test_replaced_recordings_are_trained_on(tmp_path, database, command):
    root = write_recordings(tmp_path / "recordings", seed=0)
    validation = {"name": "cross-subject", "validation_subjects": 1}
    home = Home(tmp_path / command, database).write(**QUICK, **sensor_sections(root, **validation), seeds=[0])
    words = [command, str(home.recipe), "--output", "table.csv"]
    words += ["--grid", "losses.soft-target.weight=1"] if command == "sweep" else []
    assert home.finish(*words) == 0, home.said()
    before, first = len(runs_of(home)), (home.folder / "table.csv").read_text()
    assert home.finish(*words) == 0, home.said()
    assert len(runs_of(home)) == before
    assert (home.folder / "table.csv").read_text() == first

    write_recordings(root, seed=1)
    assert home.finish(*words) == 0, home.said()
    assert len(runs_of(home)) == 2 * before
    reason = "is not continued: the recordings" if command == "sweep" else "is not reused: the recordings have changed"
    assert reason in home.said()
    fingerprints = {json.loads((each / "run.json").read_text())["fingerprint"] for each in runs_of(home)}
    assert len(fingerprints) == 2
    if command == "ablate":
        assert home.finish("compare", str(home.recipe), "--format", "markdown") == 0, home.said()
        assert "is left out: the recordings have changed" in home.said()
    else:
        assert home.finish(*words, "--study", "mine") == 0, home.said()
        write_recordings(root, seed=2)
        assert home.finish(*words, "--study", "mine") == 2
        assert "the study 'mine' cannot be continued: the recordings have changed" in home.said()
