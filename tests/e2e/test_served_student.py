"""A student behind MLflow's own server: run with ``pytest -m e2e``."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from runs import Home, encoder

from kdcore import Signal, load_student
from kdcore_mlflow.registry import register_student

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture
def home(tmp_path):
    """A finished run of one student."""
    student = {
        "modality": "accelerometer",
        "transforms": [{"name": "resample", "length": 24}, "normalise"],
        "encoder": encoder(),
    }
    made = Home(tmp_path / "home", tmp_path / "mlflow.db").write(
        teachers={},
        student=student,
        losses=["cross-entropy"],
        schedule={"name": "two-stage", "student": {"epochs": 2}},
        seeds=[0],
    )
    assert made.run() == 0, made.said()
    return made


def test_a_raw_clip_posted_to_the_served_model_gets_its_probabilities(home, tmp_path):
    register_student(str(home.runs[0]), "wrist", "champion")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/wrist@champion", "--env-manager", "local"]
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"sqlite:///{home.database}",
        "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
            env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        clip = np.random.default_rng(0).normal(size=(1, 75, 3)).astype(np.float32)
        [answer] = _post(port, {"inputs": clip.tolist()}, process, tmp_path / "server.log")["predictions"]
    finally:
        os.killpg(process.pid, 9)
        process.wait()
    student = load_student(home.runs[0] / "students" / "seed-0" / "student")
    expected = student.predict({"accelerometer": Signal(clip[0], 50.0)})[0]
    assert list(answer) == student.classes
    np.testing.assert_allclose(list(answer.values()), expected, atol=1e-5)


def _post(port, body, process, log, seconds=180):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.5)
