"""MLflow's own pages, opened in a browser: run with ``pytest -m e2e`` where ``chromium`` is installed."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from kdcore.runs.run import run

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=1500,900", "--virtual-time-budget=40000",
)  # fmt: skip
TINY = (
    "data.dataset.subjects=2", "data.dataset.trials=1", "data.dataset.actions=[wave, punch]", "seeds=[0, 1]",
    "schedule.teachers.epochs=1", "schedule.student.epochs=1", "data.batch_size=2",
)  # fmt: skip


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The address of an MLflow server that knows one run of two seeds."""
    monkeypatch.setenv("KDCORE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("KDCORE_CACHE", str(tmp_path / "cache"))
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    run("quickstart", [*TINY, f"tracking.uri={store}", "tracking.experiment=browsed"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        store,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{address}/health")
        yield address
    finally:
        subprocess.run(["pkill", "-TERM", "-s", str(process.pid)], check=False)
        process.wait(20)


def _wait_for(url: str, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


def _page(url: str, profile: Path) -> str:
    assert BROWSER is not None
    command = [BROWSER, *QUIET, f"--user-data-dir={profile}", "--dump-dom", url]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.skipif(BROWSER is None, reason="no chromium here: install it to look at MLflow's pages")
def test_runs_are_shown_nested_and_compared_side_by_side(server, tmp_path):
    from mlflow import MlflowClient

    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("browsed").experiment_id
    found = {each.info.run_name: each for each in client.search_runs([experiment])}
    root = found["quickstart"].info.run_id
    seeds = [found[f"quickstart seed {seed}"] for seed in (0, 1)]
    assert {each.data.tags["mlflow.parentRunId"] for each in seeds} == {root}

    listed = _page(f"{server}/#/experiments/{experiment}/runs", tmp_path / "profile")
    assert ">quickstart<" in listed
    assert "synthetic-motion-train" in listed

    ids = ",".join(f'"{each.info.run_id}"' for each in seeds)
    compared = _page(f'{server}/#/compare-runs?runs=[{ids}]&experiments=["{experiment}"]', tmp_path / "profile")
    assert "quickstart seed 0" in compared
    assert "quickstart seed 1" in compared
    assert "distilled/accuracy" in compared
