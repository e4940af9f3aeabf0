"""Records of a run in MLflow."""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdcore import KdcoreError, one_line
from kdcore_mlflow.database import database_file, ensure_database
from kdcore_mlflow.sender import METRICS_AT_ONCE, Record, RefusedError

RUN_TAG = "kdcore.run"
"""Tag that identifies a run whose creation was not stored locally."""

KIND_TAG = ("mlflow.experimentKind", "custom_model_development")
"""Experiment tag that marks model training. MLflow 3.17 shows the kind, but always starts with its *GenAI* view."""

PARAMS_AT_ONCE = 100

UNSET = ("None", "", "[]", "{}")
"""Values of options that are not set, which would hide the others in MLflow's tables."""

FINAL = (400, 405, 411, 413, 414, 415, 422, 431)
"""HTTP statuses of invalid requests. Others, such as 401 or 404, may disappear once the server is configured correctly."""

QUIET = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",
}
"""MLflow settings during training, unless set in the environment."""


class MlflowStore:
    """MLflow, through a separate client. The tracking URI and active run of the process are not changed.

    Args:
        uri: URI of the server or database.
        experiment: Name of the experiment, which is created if it does not exist.
        journal: ID of the journal, which identifies its runs.
    """

    def __init__(self, uri: str, experiment: str, journal: str):
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        for name in ("alembic", "urllib3.connectionpool"):
            logging.getLogger(name).setLevel(logging.ERROR)
        from mlflow import MlflowClient

        self._journal, self._root = journal, _folder_of(uri)
        ensure_database(uri, lambda new: MlflowClient(new, new).search_experiments(max_results=1))
        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        self._experiment = self._experiment_id(experiment)

    def _experiment_id(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            place = (self._root / "mlruns" / re.sub(r"[^\w.-]", "_", name)).as_uri() if self._root else None
            return self._client.create_experiment(name, artifact_location=place, tags=dict([KIND_TAG]))
        if found.lifecycle_stage != "active":
            raise KdcoreError(f"experiment {name!r} was deleted there: restore it, or choose another name")
        if KIND_TAG[0] not in found.tags:
            self._client.set_experiment_tag(found.experiment_id, *KIND_TAG)
        return found.experiment_id

    def start(self, record: Record, parent: str | None) -> str:
        """Start a run, or continue one started by an earlier attempt."""
        mark = f"{self._journal}/{record['run']}"
        tags = {**record["tags"], RUN_TAG: mark, **({"mlflow.parentRunId": parent} if parent else {})}
        if found := self._find(record["run"]):
            self._client.update_run(found, status="RUNNING")
            self.tags(found, {"values": tags}, Path())
            return found
        return self._client.create_run(self._experiment, record["time"], tags, record["name"]).info.run_id

    def _find(self, name: str) -> str:
        """Return MLflow's ID of a run of this journal; empty if it does not exist."""
        mark = f"{self._journal}/{name}"
        found = self._client.search_runs([self._experiment], f"tags.`{RUN_TAG}` = '{mark}'", max_results=1)
        return found[0].info.run_id if found else ""

    def send(self, run: str, records: Sequence[Record], folder: Path) -> None:
        """Send one record, or several of kind ``metrics``."""
        from mlflow.exceptions import MlflowException

        try:
            if records[0]["kind"] == "metrics":
                self.metrics(run, records)
            else:
                getattr(self, records[0]["kind"])(run, records[0], folder)
        except MlflowException as error:
            if _is_final(error):
                raise RefusedError(one_line(error)) from error
            raise

    def metrics(self, run: str, records: Sequence[Record]) -> None:
        """Send metrics with their time stamps. MLflow stores equal rows once."""
        from mlflow.entities import Metric

        rows = [Metric(key, value, each["time"], each["step"]) for each in records for key, value in each["values"].items()]
        for part in _parts(rows, METRICS_AT_ONCE):
            self._client.log_batch(run, metrics=part)

    def params(self, run: str, record: Record, folder: Path) -> None:
        """Send the parameters that are set. The recipe among the artifacts contains all."""
        from mlflow.entities import Param

        params = [Param(key, value) for key, value in record["values"].items() if value not in UNSET]
        for part in _parts(params, PARAMS_AT_ONCE):
            self._client.log_batch(run, params=part)

    def tags(self, run: str, record: Record, folder: Path) -> None:
        """Send tags."""
        from mlflow.entities import RunTag

        for part in _parts([RunTag(key, value) for key, value in record["values"].items()], PARAMS_AT_ONCE):
            self._client.log_batch(run, tags=part)

    def artifact(self, run: str, record: Record, folder: Path) -> None:
        """Send a file or folder, from the copy next to the journal."""
        path = folder / record["file"]
        if not path.exists():
            raise RefusedError(f"{path} no longer exists")
        self._client.log_artifact(run, str(path), record["to"] or None)

    def dataset(self, run: str, record: Record, folder: Path) -> None:
        """Send a dataset that the run read."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        data = Dataset(record["name"], record["digest"], "local", json.dumps({"uri": record["source"]}))
        self._client.log_inputs(run, [DatasetInput(data, [InputTag("mlflow.data.context", record["context"])])])

    def model(self, run: str, record: Record, folder: Path) -> None:
        """Send a model of the run, which replaces an existing one with the same name."""
        name = record["name"]
        found = self._models(name, run)
        model = found[0] if found else self._client.create_logged_model(self._experiment, name, run, model_type="kdcore")
        with tempfile.TemporaryDirectory() as temporary:
            saved = Path(temporary, "model")
            try:
                _save_model(saved, record, folder, run, model.model_id)
            except Exception as error:
                self._client.finalize_logged_model(model.model_id, "FAILED")
                raise RefusedError(f"the model cannot be loaded: {one_line(error)}") from error
            self._client.log_model_artifacts(model.model_id, str(saved))
        self._link(run, model.model_id)
        self._client.finalize_logged_model(model.model_id, "READY")

    def linked_model(self, run: str, record: Record, folder: Path) -> None:
        """Link a model of another run of this journal to this run."""
        found = self._models(record["name"], self._find(record["source"]))
        if not found:
            raise RefusedError(f"{record['source']} has no model {record['name']!r}")
        self._link(run, found[0].model_id)

    def _models(self, name: str, run: str) -> list[Any]:
        return list(self._client.search_logged_models([self._experiment], f"name = '{name}' AND source_run_id = '{run}'"))

    def _link(self, run: str, model: str) -> None:
        """Show a model among the outputs of a run."""
        from mlflow.entities import LoggedModelOutput

        outputs = self._client.get_run(run).outputs
        if model not in [each.model_id for each in (outputs.model_outputs if outputs else [])]:
            self._client.log_outputs(run, [LoggedModelOutput(model, step=0)])

    def finish(self, run: str, record: Record, folder: Path) -> None:
        """Finish the run."""
        self._client.set_terminated(run, record["status"], record["time"])


def _is_final(error: Any) -> bool:
    """Return whether MLflow, or a proxy in front of it, will always reject this call."""
    status = re.search(r"failed with error code (\d+)", str(error))
    return error.error_code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST") or bool(status and int(status[1]) in FINAL)


def _save_model(place: Path, record: Record, folder: Path, run: str, model_id: str) -> None:
    from mlflow import pyfunc
    from mlflow.models import Model

    description = Model(run_id=run, model_id=model_id, model_uuid=model_id)
    pyfunc.save_model(
        place,
        mlflow_model=description,
        python_model=folder / record["code"],
        artifacts={key: str(folder / path) for key, path in record["artifacts"].items()},
        input_example=np.load(folder / record["input_example"]),
        pip_requirements=record["pip_requirements"],
    )
    if description.signature is None:
        raise ValueError("it returns nothing for the input example")
    _free_length(description)
    description.save(str(place / "MLmodel"))


def _free_length(description: Any) -> None:
    """Allow recordings of any length: their second axis is time, whatever its length in the example."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    signature = description.signature
    inputs = [
        TensorSpec(each.type, (-1, -1, *each.shape[2:])) if len(each.shape) > 2 else each for each in signature.inputs.inputs
    ]
    description.signature = ModelSignature(Schema(inputs), signature.outputs)


def _folder_of(uri: str) -> Path | None:
    file = database_file(uri)
    return file.parent if file else None


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
