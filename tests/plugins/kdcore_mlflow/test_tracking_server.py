from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from runs import FORKS

from kdcore import RunJournal
from kdcore_mlflow.sender import Sender
from kdcore_mlflow.tracker import MlflowTracker, sync

pytestmark = pytest.mark.slow


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def server(folder: Path, port: int):
    store = f"sqlite:///{folder}/mlflow.db"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", store, "--artifacts-destination", str(folder / "artifacts")]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # each of its queues is one more process
    with (folder / "server.log").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=folder, env=environment)
    try:
        for _ in range(240):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                    break
            except OSError:
                assert process.poll() is None, (folder / "server.log").read_text()
                time.sleep(0.5)
        yield
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.2)
    assert condition()


def test_a_server_that_goes_and_comes_back_has_everything_once(tmp_path, port, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    said, folder, uri = [], tmp_path / "run", f"http://127.0.0.1:{port}"
    note = tmp_path / "note.txt"
    note.write_text("kept")
    tracker = RunJournal(folder, MlflowTracker(uri, said.append), "server")
    tracker.start("root", "name", params={"a": 1})
    tracker.start("seed-0", "seed 0", parent="root")
    with server(tmp_path, port):
        for step in range(5):
            tracker.metrics("seed-0", {"loss": 1 / (step + 1)}, step)
        tracker.commit()
        until(lambda: tracker.tracker._sender.sent >= tracker.position)
    for step in range(5, 10):
        tracker.metrics("seed-0", {"loss": float("nan") if step == 5 else 1 / (step + 1)}, step)
        tracker.commit()
    tracker.artifact("seed-0", note)
    tracker.commit()
    until(lambda: said)
    with server(tmp_path, port):
        for step in range(10, 15):
            tracker.metrics("seed-0", {"loss": 1 / (step + 1)}, step)
        tracker.finish("seed-0")
        tracker.finish("root")
        tracker.commit()
        assert tracker.close(120)
        assert len(said) == 1
        assert "training continues" in said[0]
        (folder / "sent.json").unlink()
        sync(folder)
        check(uri, tracker.tracker.run_ids()["seed-0"], tmp_path)


def check(uri, run, scratch):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    assert len(client.search_runs([client.get_experiment_by_name("server").experiment_id])) == 2
    rows = client.get_metric_history(run, "loss")
    assert [row.step for row in rows] == list(range(15))
    expected = [1 / (step + 1) for step in range(15)]
    found = [row.value for row in rows]
    assert np.delete(found, 5).tolist() == np.delete(expected, 5).tolist()
    assert client.get_run(run).info.status == "FINISHED"
    assert Path(client.download_artifacts(run, "note.txt", str(scratch))).read_text() == "kept"


def killed_between(folder: Path, uri: str, limit: int) -> None:
    """Send a journal, and die before anything past byte `limit` of it is noted as sent."""
    remember = Sender._remember

    def die(self, position, durable=False):
        if position > limit:
            os.kill(os.getpid(), signal.SIGKILL)
        remember(self, position, durable)

    Sender._remember = die
    tracker = RunJournal(folder, MlflowTracker(uri), "killed")
    tracker.start("root", "name", params={"a": 1})
    for step in range(3):
        tracker.metrics("root", {"loss": 1 / (step + 1)}, step)
        tracker.tags("root", {"step": step})
    tracker.commit()
    tracker.close(60)


def test_kill_minus_nine_between_sending_and_noting(tmp_path):
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for number, limit in enumerate((0, 700)):
        folder = tmp_path / f"run-{number}"
        process = FORKS.Process(target=killed_between, args=(folder, uri, limit))
        process.start()
        process.join(120)
        assert process.exitcode == -signal.SIGKILL
        assert sync(folder) > 0
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("killed").experiment_id])
    assert len(runs) == 2
    for run in runs:
        rows = client.get_metric_history(run.info.run_id, "loss")
        assert [(row.step, row.value) for row in rows] == [(step, 1 / (step + 1)) for step in range(3)]
        assert run.data.tags["step"] == "2"
