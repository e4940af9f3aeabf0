"""A run again, from its folder and from MLflow alone."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from mlflow import MlflowClient
from quick import runs_of
from runs import Home

from kdcore import KdcoreError, UsageError, read_run
from kdcore.runs.outcome import read_outcome, write_outcome
from kdcore.runs.records import outcome_file
from kdcore_compare.comparison import compare_sources
from kdcore_compare.reproduce import changed_conditions, changed_results, verdict
from kdcore_mlflow.downloads import tracked_run


@pytest.mark.slow
def test_a_run_is_reproduced_from_mlflow_alone(two_seeds, tmp_path):
    client = MlflowClient(f"sqlite:///{two_seeds.database}")
    experiment = client.get_experiment_by_name(two_seeds.folder.name)
    assert experiment
    found = client.search_runs([experiment.experiment_id], "tags.seed = '0'")
    elsewhere = Home(tmp_path / "elsewhere", two_seeds.database)
    elsewhere.folder.mkdir()
    uri = f"sqlite:///{two_seeds.database}"
    assert elsewhere.finish("reproduce", found[0].info.run_id, "--uri", uri) == 0, elsewhere.said()
    assert (
        "Reproduced: the predictions of every participant are bit-identical." in (elsewhere.folder / "stdout.txt").read_text()
    )
    (again,) = runs_of(elsewhere)
    for path in (runs_of(two_seeds)[0] / "results").iterdir():
        with np.load(path) as was, np.load(again / "results" / path.name) as now:
            assert np.array_equal(was["probabilities.student"], now["probabilities.student"])


@pytest.fixture
def altered(two_seeds, tmp_path):
    """A copy of a run in which one answer, torch's version, the recordings, code and a file are others."""
    folder = tmp_path / "altered"
    shutil.copytree(runs_of(two_seeds)[0], folder)
    facts = json.loads((folder / "run.json").read_text())
    facts["versions"]["torch"] = "1.0"
    facts["fingerprint"] = "abc"
    facts["code"]["losses"] = "edited"
    facts["files"] = {"teachers.skeleton.weights.file": "abc"}
    (folder / "run.json").write_text(json.dumps(facts))
    path = outcome_file(folder, 1, "distilled")
    outcome = read_outcome(path)
    answers = outcome.probabilities["student"].copy()
    answers[0] = np.roll(answers[0], 1)
    write_outcome(path, type(outcome)(**{**vars(outcome), "probabilities": {**outcome.probabilities, "student": answers}}))
    return folder


def test_what_differs_is_told(two_seeds, altered):
    original, again = read_run(altered), read_run(runs_of(two_seeds)[0])
    conditions, numbers = list(changed_conditions(original, again)), list(changed_results(original, again))
    assert conditions == [
        f"data fingerprint: abc then, {again.facts.fingerprint} now",
        f"torch: 1.0 then, {again.facts.versions['torch']} now",
        "the code of losses has changed",
        "the file at teachers.skeleton.weights.file has changed",
    ]
    assert len(numbers) == 1
    assert numbers[0].startswith("seed 1, distilled, student: accuracy ")
    assert "of 9 predictions differ" in numbers[0]
    assert verdict(conditions, numbers) == "Not reproduced: 1 result differs; the changed conditions are listed above them."
    assert not list(changed_results(again, again))


def test_runs_of_an_experiment_are_compared(two_seeds, tmp_path):
    uri = f"sqlite:///{two_seeds.database}"
    mine = str(runs_of(two_seeds)[0])
    found = compare_sources([f"{mine}@baseline"], two_seeds.folder.name, uri)
    assert len(found.entries) == 2
    with np.load(runs_of(two_seeds)[0] / "results" / "seed-0-distilled.npz") as kept:
        accuracy = (kept["probabilities.student"].argmax(1) == kept["labels"]).mean()
    assert found.entries[1].values("accuracy")[0] == accuracy
    own = compare_sources([], two_seeds.folder.name, uri, "tags.dataset = 'synthetic-motion'")
    assert [each.label for each in own.entries] == ["tiny@baseline", "tiny"]
    for wrong, said in (("bla", "Invalid clause"), ("tags.dataset=foo", "not quoted")):
        with pytest.raises(UsageError, match=f"^--filter '{wrong}': .*{said}.*; write it as in"):
            compare_sources([], two_seeds.folder.name, uri, wrong)
    with pytest.raises(KdcoreError, match="no experiment 'nothing'"):
        compare_sources([], "nothing", uri)
    with pytest.raises(KdcoreError, match="no finished run of kdcore with tags"):
        compare_sources([], two_seeds.folder.name, uri, "tags.recipe = 'other'")
    with pytest.raises(KdcoreError, match="MLflow has no finished run '0123'"):
        tracked_run("0123", tmp_path, uri)


def test_commands(two_seeds):
    run = runs_of(two_seeds)[0].name
    assert two_seeds.finish("report", run) == 0, two_seeds.said()
    assert two_seeds.finish("compare", run, "--format", "markdown") == 0, two_seeds.said()
    assert two_seeds.finish("compare", str(two_seeds.recipe), "--output", "table.tex") == 0, two_seeds.said()
    assert "tiny@baseline" in (two_seeds.folder / "table.tex").read_text()
    assert "| tiny@baseline | 2 |" in (two_seeds.folder / "stdout.txt").read_text()
    assert "report.html" in (two_seeds.folder / "stdout.txt").read_text()


def test_reading_makes_no_database(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for uri, named in (("sqlite:///nowhere/x.db", "nowhere/x.db"), (None, "mlflow.db")):
        with pytest.raises(UsageError, match=f"MLflow database {tmp_path / named} does not exist"):
            compare_sources([], "anything", uri)
    with pytest.raises(KdcoreError, match=f"MLflow database {tmp_path}.* does not exist"):
        tracked_run("0123", tmp_path, "sqlite:///nowhere/x.db")
    assert not list(tmp_path.iterdir())


def test_an_mlflow_that_cannot_be_used_is_said_in_a_line(tmp_path):
    (tmp_path / "x.db").write_text("no database at all, but long enough to look like one" * 40)
    for uri, said in ((f"sqlite:///{tmp_path}/x.db", "file is not a database"), ("nosuch://me:geheim@a", "nosuch")):
        with pytest.raises(KdcoreError, match=said) as refused:
            compare_sources([], "anything", uri)
        assert "\n" not in str(refused.value)
