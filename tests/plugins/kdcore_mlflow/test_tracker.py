from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kdcore import KdcoreError, RunJournal
from kdcore_mlflow.events import record_model
from kdcore_mlflow.store import MlflowStore
from kdcore_mlflow.tracker import MlflowTracker, sync

CODE = """
import mlflow
import numpy as np


class Doubler(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.factor = np.load(context.artifacts["weights"])

    def predict(self, context, model_input: np.ndarray, params=None):
        return model_input * self.factor


mlflow.models.set_model(Doubler())
"""


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow store')}/mlflow.db"


@pytest.fixture(scope="module")
def client(uri):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def opened(folder, uri=None, experiment="kdcore", say=print):
    return RunJournal(folder, MlflowTracker(uri, say), experiment)


@pytest.fixture
def experiment(request):
    return request.node.name


def history(client, run, name):
    return [(each.step, each.value) for each in client.get_metric_history(run, name)]


def runs_of(client, experiment):
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


PARAMS = {"losses[0].weight": 0.5, "recipe": "x" * 7000, "fusion": None, "plugins": [], "taps": {}, "baseline": False, "n": 0}


def test_everything_that_is_recorded_arrives(tmp_path, uri, client, experiment):
    tracker = opened(tmp_path / "run", uri, experiment)
    tracker.start("root", "sakdn", tags={"kdcore.version": "0.1"}, params=PARAMS)
    tracker.start("seed-0", "seed 0", parent="root")
    for epoch in range(3):
        tracker.metrics("seed-0", {"loss/total": 1 / (epoch + 1), "odd": math.nan}, step=epoch)
    tracker.record("dataset", "root", name="utd-mhad", digest="f" * 36, source="/data/utd", context="training")
    picture = tmp_path / "picture.txt"
    picture.write_text("first")
    tracker.artifact("seed-0", picture, "pictures")
    picture.unlink()
    tracker.finish("seed-0")
    tracker.finish("root", "FAILED")
    tracker.commit()
    assert tracker.close(60)

    ids = tracker.tracker.run_ids()
    root, child = client.get_run(ids["root"]), client.get_run(ids["seed-0"])
    assert root.info.run_name == "sakdn"
    assert root.info.status == "FAILED"
    assert root.data.tags["kdcore.version"] == "0.1"
    assert [value for name, value in root.data.params.items() if name.startswith("losses_0_.weight-")] == ["0.5"]
    assert len(root.data.params["recipe"]) == 6000
    assert (root.data.params["baseline"], root.data.params["n"]) == ("False", "0")
    assert not {"fusion", "plugins", "taps"} & root.data.params.keys(), "options that are not set hide the others"
    assert Path(client.download_artifacts(ids["root"], "params/recipe.txt", str(tmp_path))).read_text() == "x" * 7000
    data = root.inputs.dataset_inputs[0]
    assert (data.dataset.name, data.dataset.digest, data.tags[0].value) == ("utd-mhad", "f" * 36, "training")
    assert child.info.status == "FINISHED"
    assert child.data.tags["mlflow.parentRunId"] == ids["root"]
    assert history(client, ids["seed-0"], "loss/total") == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert len(history(client, ids["seed-0"], "odd")) == 3
    assert Path(client.download_artifacts(ids["seed-0"], "pictures/picture.txt", str(tmp_path))).read_text() == "first"
    database = Path(uri.removeprefix("sqlite:///"))
    assert Path(root.info.artifact_uri.removeprefix("file://").replace("%20", " ")).is_relative_to(database.parent / "mlruns")


def test_a_sender_killed_between_sending_and_noting_doubles_nothing(tmp_path, uri, client, experiment):
    folder = tmp_path / "run"
    tracker = opened(folder, uri, experiment)
    tracker.start("root", "name", params={"a": 1})
    tracker.metrics("root", {f"m{n}": n / 3 for n in range(1500)}, step=1)
    tracker.metrics("root", {"m0": math.nan, "m1": math.inf}, step=2)
    tracker.record("dataset", "root", name="data", digest="digest", source="here", context="testing")
    tracker.finish("root")
    tracker.commit()
    assert tracker.close(60)
    (folder / "sent.json").unlink()  # as if nothing had been noted
    assert sync(folder) == 6

    [run] = runs_of(client, experiment)
    assert run.info.run_id == tracker.tracker.run_ids()["root"]
    assert run.info.status == "FINISHED"
    assert len(run.inputs.dataset_inputs) == 1
    assert history(client, run.info.run_id, "m5") == [(1, 5 / 3)]
    assert [step for step, _ in history(client, run.info.run_id, "m0")] == [1, 2]
    assert [step for step, _ in history(client, run.info.run_id, "m1")] == [1, 2]


def test_a_resumed_run_goes_on_where_its_checkpoint_stands(tmp_path, uri, client, experiment):
    folder = tmp_path / "run"
    tracker = opened(folder, uri, experiment)
    tracker.start("root", "name")
    tracker.metrics("root", {"loss": 3.0}, step=0)
    checkpoint = tracker.flush()
    tracker.commit()
    tracker.metrics("root", {"loss": 2.0}, step=1)  # done again after the resumption
    tracker.rewind(tracker.position)
    tracker.finish("root", "KILLED")
    tracker.commit()
    assert tracker.close(60)
    assert client.get_run(tracker.tracker.run_ids()["root"]).info.status == "KILLED"

    resumed = opened(folder, None, "ignored")
    resumed.rewind(checkpoint)
    assert resumed.tracker.uri == uri
    resumed.start("root", "name")
    resumed.metrics("root", {"loss": 2.0}, step=1)
    resumed.commit()
    assert resumed.close(60)
    [run] = runs_of(client, experiment)
    assert run.info.status == "RUNNING"
    assert history(client, run.info.run_id, "loss") == [(0, 3.0), (1, 2.0)]


def test_what_is_committed_here_cannot_be_taken_back(tmp_path, uri, experiment):
    tracker = opened(tmp_path, uri, experiment)
    tracker.start("root", "name")
    tracker.commit()
    with pytest.raises(RuntimeError, match="taken back"):
        tracker.rewind(0)
    assert tracker.close(60)


def test_the_model_is_logged_with_signature_and_example_and_loads(tmp_path, uri, client, experiment, monkeypatch):
    import mlflow

    code, weights = tmp_path / "code.py", tmp_path / "weights.npy"
    code.write_text(CODE)
    np.save(weights, np.float32(2))
    example = np.ones((1, 3, 4), dtype=np.float32)
    tracker = opened(tmp_path / "run", uri, experiment)
    tracker.start("root", "name")
    record_model(tracker, "root", "student", {"weights": weights}, example, code, ["numpy"])
    code.unlink()
    weights.unlink()
    tracker.commit()
    assert tracker.close(120)
    (tmp_path / "run" / "sent.json").unlink()
    sync(tmp_path / "run")

    run = tracker.tracker.run_ids()["root"]
    [model] = client.search_logged_models([client.get_experiment_by_name(experiment).experiment_id])
    assert (model.name, model.status, model.source_run_id) == ("student", "READY", run)
    assert [each.model_id for each in client.get_run(run).outputs.model_outputs] == [model.model_id]
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        loaded = mlflow.pyfunc.load_model(f"runs:/{run}/student")
    finally:
        mlflow.set_tracking_uri(before)
    assert loaded.metadata.signature.inputs.inputs[0].shape == (-1, -1, 4)  # recordings may be of any length
    assert loaded.metadata.saved_input_example_info is not None
    assert loaded.predict(3 * example) == pytest.approx(6 * example)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('no such layer')", "no such layer"),
        (
            CODE.replace("return model_input * self.factor", "raise ValueError('too short')").replace("weights", "w"),
            "too short",
        ),
    ],
)
def test_a_model_that_cannot_be_loaded_is_said_and_holds_up_nothing(tmp_path, uri, client, code, reason):
    experiment = reason
    said = []
    (tmp_path / "code.py").write_text(code)
    tracker = opened(tmp_path / "run", uri, experiment, said.append)
    tracker.start("root", "name")
    np.save(tmp_path / "w.npy", 1)
    record_model(tracker, "root", "student", {"w": tmp_path / "w.npy"}, np.ones((1, 2)), tmp_path / "code.py", ["numpy"])
    tracker.metrics("root", {"after": 1.0}, step=0)
    tracker.commit()
    assert tracker.close(60)
    assert len(said) == 1
    assert reason in said[0]
    assert history(client, tracker.tracker.run_ids()["root"], "after") == [(0, 1.0)]


def test_a_dead_server_holds_up_nothing_and_loses_nothing(tmp_path, uri, client, experiment):
    said, folder = [], tmp_path / "run"
    tracker = opened(folder, "http://127.0.0.1:9", experiment, said.append)
    began = time.monotonic()
    tracker.start("root", "name")
    for step in range(100):
        tracker.metrics("root", {"loss": 1.0}, step)
        tracker.commit()
    assert time.monotonic() - began < 5
    assert not tracker.close(0.2)
    assert len(said) == 1
    assert f"101 records are waiting in {folder}" in said[0]
    assert f"kdcore sync {folder}" in said[0]
    tracker.tracker._thread.join(60)
    assert sync(folder, uri) == 101
    assert len(history(client, runs_of(client, experiment)[0].info.run_id, "loss")) == 100


def test_neither_files_nor_an_empty_folder_will_do(tmp_path):
    with pytest.raises(KdcoreError, match="sqlite:///"):
        opened(tmp_path, "./mlruns")
    with pytest.raises(KdcoreError, match="no journal"):
        sync(tmp_path)


def test_where_to_look_is_said_without_passwords(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert opened(tmp_path / "a").tracker.describe().endswith(f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/mlflow.db")
    said = opened(tmp_path / "b", "https://me:secret@host/mlflow", "mine").tracker.describe()
    assert "https://host/mlflow" in said
    assert "'mine'" in said
    assert "secret" not in said


def test_mlflow_is_loaded_by_the_sender_alone():
    code = "import sys, kdcore_mlflow.tracker; sys.exit(bool({'mlflow', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_users_own_environment_is_respected(monkeypatch, tmp_path, uri):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    MlflowStore(uri, "environment", "journal")
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "2"
