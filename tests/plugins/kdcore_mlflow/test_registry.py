from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from kdcore import KdcoreError, Signal, load_student
from kdcore_mlflow.registry import register_student


@pytest.mark.slow
def test_a_student_gets_a_version_and_an_alias(trained, students):
    import mlflow
    from mlflow import MlflowClient

    run, uri = str(trained.runs[0]), f"sqlite:///{trained.database}"
    assert register_student(run, "wrist", "champion", student="a") == "wrist version 1, models:/wrist@champion"
    assert register_student(run, "wrist") == "wrist version 2, models:/wrist/2"
    client = MlflowClient(uri, uri)
    assert client.get_model_version_by_alias("wrist", "champion").version == 1
    assert "version 3" in register_student(run, "wrist", "champion", student="b")
    assert client.get_model_version_by_alias("wrist", "champion").version == 3
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    try:
        loaded = mlflow.pyfunc.load_model("models:/wrist/1")
    finally:
        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri(None)
    x = np.random.default_rng(0).normal(size=(2, 64, 3)).astype(np.float32)
    found = loaded.predict(x)
    expected = [load_student(students / "a").predict({"accelerometer": Signal(each, 50.0)})[0] for each in x]
    assert list(found.columns) == ["wave", "punch", "sit down"]
    np.testing.assert_allclose(found.to_numpy(), expected, atol=1e-6)
    assert loaded.metadata.signature.inputs.inputs[0].shape == (-1, -1, 3)


def test_a_modality_without_a_rate_is_served_at_that_of_the_training_recordings(students, tmp_path):
    from kdcore_mlflow.pyfunc_model import ServedStudent

    folder = shutil.copytree(students / "a", tmp_path / "a")
    described = json.loads((folder / "student.json").read_text())
    described["modalities"][0]["rate"] = None
    described["recorded"]["accelerometer"]["rate"] = 25.0
    described["window"] = {"length": 0.8, "hop": None}
    (folder / "student.json").write_text(json.dumps(described))
    served = ServedStudent()
    served.load_context(SimpleNamespace(artifacts={"student": str(folder)}))
    x = np.random.default_rng(0).normal(size=(2, 40, 3)).astype(np.float32)
    expected = [load_student(students / "a").predict([(each[:20], 25.0), (each[20:], 25.0)]).mean(0) for each in x]
    np.testing.assert_allclose(served.predict(None, x).to_numpy(), expected, atol=1e-6)


def test_what_is_not_there_is_said(trained):
    run = str(trained.runs[0])
    with pytest.raises(KdcoreError, match=r"no seed 7 \(available: 0\)"):
        register_student(run, "wrist", seed=7)
    with pytest.raises(KdcoreError, match=r"no model 'c' \(available: .*ensemble"):
        register_student(run, "wrist", student="c")
