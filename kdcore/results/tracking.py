"""Tracking with MLflow, which nothing else imports: first to disk, then to the server, in the background."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np

from kdcore.errors import KdcoreError
from kdcore.results.database import SQLITE, database_file, ensure_database
from kdcore.results.journal import Journal
from kdcore.results.recording import Recorder
from kdcore.results.sending import METRICS_AT_ONCE, Record, RefusedError, Sender

RUN_TAG = "kdcore.run"
"""Tag by which a run is found again when its creation was not noted."""

PARAMS_AT_ONCE = 100
SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Between two attempts to reach MLflow, in seconds."""


QUIET = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",
}
"""How MLflow is to behave beside a training, unless the environment says otherwise."""


class Tracker(Recorder):
    """Records a run and sends the records to MLflow from a thread of its own. Training never waits for it.

    A record is sent once it is committed; a record sent twice, because a crash came between sending and noting it,
    counts once, since its time and its run are those of the first time.

    A checkpoint goes between the two halves of a commit, so that what was sent is never more than what is kept:
    ``position = tracker.flush()``, save the checkpoint with `position` in it, ``tracker.commit()``. To resume, open the
    same folder and `rewind` to the checkpoint's position (0 without one).

    Args:
        folder: Where journal and copies of artifacts are kept.
        uri: An MLflow server or database; None for the journal's own, else ``MLFLOW_TRACKING_URI``, else
            ``mlflow.db`` in the current folder.
        experiment: MLflow experiment; made if absent.
        say: Is given each line meant for the user.

    Raises:
        KdcoreError: If `uri` is of no kind that can be used, or the journal is damaged.
    """

    def __init__(self, folder: Path, uri: str | None = None, experiment: str = "kdcore", say: Callable[[str], None] = print):
        super().__init__(Journal(folder, resolved := _resolve(uri), experiment))
        self._say = say
        self.uri = resolved if uri else self._journal.header["uri"]
        self._sender = _sender(self._journal, self.uri, say)
        self._wake, self._closing, self._given_up = threading.Condition(), False, threading.Event()
        self._thread: threading.Thread | None = None

    def flush(self) -> int:
        """Make all records durable, and return the position for a checkpoint. Nothing of it is sent before `commit`."""
        return self._journal.flush()

    def commit(self) -> int:
        """Make all records durable and send them, in time; returns `position`."""
        with self._wake:
            self._journal.commit()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="kdcore-tracking", daemon=True)
                self._thread.start()
            self._wake.notify_all()
        return self.position

    @property
    def position(self) -> int:
        """How much of the journal is committed, in bytes."""
        return self._journal.committed

    def under_way(self) -> list[str]:
        """Local names of the runs that have begun and not ended, by what is committed; the latest first."""
        found: dict[str, None] = {}
        for _, record in self._journal.read(0):
            if record["kind"] == "start":
                found[record["run"]] = None
            elif record["kind"] == "finish":
                found.pop(record["run"], None)
        return list(reversed(found))

    def rewind(self, position: int) -> None:
        """Forget all records after `position`.

        Raises:
            RuntimeError: If they may be on their way already: rewind before committing anything new.
        """
        if position < self.position and self._thread is not None:
            raise RuntimeError("records already committed by this process cannot be taken back")
        self._journal.rewind(position)
        self._sender.sent = min(self._sender.sent, self._journal.end)

    def close(self, timeout: float = 30) -> bool:
        """Wait until all committed records are sent, at most `timeout` seconds; say so if some are not."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join(timeout)
        self._given_up.set()
        waiting = self._sender.waiting()
        if waiting:
            self._say(
                f"tracking: {waiting} records wait in {self.folder}; "
                f"`kdcore sync {self.folder}` sends them to {_shown(self.uri)}"
            )
        self._journal.close()
        return not waiting

    def run_ids(self) -> dict[str, str]:
        """Local name → MLflow run id, of the runs that MLflow knows by now."""
        return dict(self._sender.runs)

    def describe(self) -> str:
        """How to look at what was tracked."""
        experiment = f"experiment {self._journal.header['experiment']!r}"
        if self.uri.startswith("http"):
            return f"{experiment} at {_shown(self.uri)}"
        return f"{experiment}: mlflow ui --backend-store-uri {shlex.quote(_shown(self.uri))}"

    def _work(self) -> None:
        failures, warned = 0, False
        while not self._given_up.is_set():
            with self._wake:
                self._wake.wait_for(lambda: self._closing or self._sender.sent < self.position)
                closing = self._closing
            try:
                self._sender.send(self._given_up.is_set)
                failures = 0
            except Exception as error:
                failures += 1
                # The first failure may be two runs making one database; it is worth a second try before a word.
                if failures == 2 and not warned:
                    warned = True
                    self._say(f"tracking: {_trouble(self.uri, error)}; training goes on, records are kept in {self.folder}")
                with self._wake:
                    self._wake.wait_for(lambda: self._closing, min(2.0 ** (failures - 1), LONGEST_PAUSE))
                self._given_up.wait(SHORTEST_PAUSE)
            if closing and (failures > 2 or self._sender.sent >= self.position):
                return


class NullTracker:
    """Has the methods of `Tracker` and does nothing: for every process of a run but the first."""

    position = 0
    uri = ""

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name not in ("start", "metrics", "params", "tags", "artifact", "dataset", "model", "finish", "rewind"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None

    def flush(self) -> int:
        """Nothing is recorded."""
        return 0

    def commit(self) -> int:
        """Nothing is sent."""
        return 0

    def under_way(self) -> list[str]:
        """There are none."""
        return []

    def close(self, timeout: float = 30) -> bool:
        """There is nothing to wait for."""
        return True

    def run_ids(self) -> dict[str, str]:
        """There are none."""
        return {}

    def describe(self) -> str:
        """There is nothing to look at."""
        return ""


def sync(folder: Path, uri: str | None = None, say: Callable[[str], None] = print) -> int:
    """Send what a run's journal holds and MLflow does not know yet.

    Args:
        folder: The tracker's folder.
        uri: Where to, if not where the run was to be tracked: everything is then sent there.
        say: Is given each line meant for the user.

    Returns:
        How many records were sent.

    Raises:
        KdcoreError: If there is no journal, or MLflow cannot be reached; what was sent until then stays sent.
    """
    journal = Journal(folder, writable=False)
    sender = _sender(journal, _resolve(uri) if uri else journal.header["uri"], say)
    try:
        return sender.send()
    except Exception as error:
        raise KdcoreError(f"{_trouble(sender.uri, error)}; {sender.waiting()} records still wait in {folder}") from error


def tracked_runs(run: Path) -> tuple[str, dict[str, str]]:
    """Where the run in this folder is tracked, and MLflow's ids of its runs, ``root``, ``seed-0`` …

    Raises:
        KdcoreError: If there is no journal.
    """
    journal = Journal(run / "tracking", writable=False)
    return journal.header["uri"], dict(_sender(journal, journal.header["uri"], print).runs)


def _sender(journal: Journal, uri: str, say: Callable[[str], None]) -> Sender:
    return Sender(journal, uri, lambda: MlflowStore(uri, journal.header["experiment"], journal.header["id"]), say)


class MlflowStore:
    """MLflow, through a client of its own: the process's tracking URI and active run are left alone.

    Args:
        uri: Server or database.
        experiment: Its name; made if absent.
        journal: Id of the journal whose records come; tells its runs from all others.
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
            return self._client.create_experiment(name, artifact_location=place)
        if found.lifecycle_stage != "active":
            raise KdcoreError(f"experiment {name!r} was deleted there: restore it, or choose another name")
        return found.experiment_id

    def start(self, record: Record, parent: str | None) -> str:
        """Begin a run, or go on with the one begun for an earlier record like this."""
        mark = f"{self._journal}/{record['run']}"
        tags = {**record["tags"], RUN_TAG: mark, **({"mlflow.parentRunId": parent} if parent else {})}
        found = self._client.search_runs([self._experiment], f"tags.`{RUN_TAG}` = '{mark}'", max_results=1)
        if found:
            self._client.update_run(found[0].info.run_id, status="RUNNING")
            self.tags(found[0].info.run_id, {"values": tags}, Path())
            return found[0].info.run_id
        return self._client.create_run(self._experiment, record["time"], tags, record["name"]).info.run_id

    def send(self, run: str, records: Sequence[Record], folder: Path) -> None:
        """Send one record, or several of kind ``metrics``."""
        from mlflow.exceptions import MlflowException

        try:
            if records[0]["kind"] == "metrics":
                self.metrics(run, records)
            else:
                getattr(self, records[0]["kind"])(run, records[0], folder)
        except MlflowException as error:
            if error.error_code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
                raise RefusedError(_line(error)) from error
            raise

    def metrics(self, run: str, records: Sequence[Record]) -> None:
        """Numbers, each with the time it was recorded: MLflow keeps one of equal rows."""
        from mlflow.entities import Metric

        rows = [Metric(key, value, each["time"], each["step"]) for each in records for key, value in each["values"].items()]
        for part in _parts(rows, METRICS_AT_ONCE):
            self._client.log_batch(run, metrics=part)

    def params(self, run: str, record: Record, folder: Path) -> None:
        """Parameters."""
        from mlflow.entities import Param

        for part in _parts([Param(key, value) for key, value in record["values"].items()], PARAMS_AT_ONCE):
            self._client.log_batch(run, params=part)

    def tags(self, run: str, record: Record, folder: Path) -> None:
        """Tags."""
        from mlflow.entities import RunTag

        for part in _parts([RunTag(key, value) for key, value in record["values"].items()], PARAMS_AT_ONCE):
            self._client.log_batch(run, tags=part)

    def artifact(self, run: str, record: Record, folder: Path) -> None:
        """A file or folder, from the copy beside the journal."""
        path = folder / record["file"]
        if not path.exists():
            raise RefusedError(f"{path} is gone")
        self._client.log_artifact(run, str(path), record["to"] or None)

    def dataset(self, run: str, record: Record, folder: Path) -> None:
        """A dataset the run read."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        data = Dataset(record["name"], record["digest"], "local", json.dumps({"uri": record["source"]}))
        self._client.log_inputs(run, [DatasetInput(data, [InputTag("mlflow.data.context", record["context"])])])

    def model(self, run: str, record: Record, folder: Path) -> None:
        """A model, under its run; a model of that name that the run has already is replaced."""
        from mlflow.entities import LoggedModelOutput

        name = record["name"]
        found = self._client.search_logged_models([self._experiment], f"name = '{name}' AND source_run_id = '{run}'")
        model = found[0] if found else self._client.create_logged_model(self._experiment, name, run, model_type="kdcore")
        with tempfile.TemporaryDirectory() as temporary:
            saved = Path(temporary, "model")
            try:
                _save_model(saved, record, folder, run, model.model_id)
            except Exception as error:
                self._client.finalize_logged_model(model.model_id, "FAILED")
                raise RefusedError(f"the model cannot be loaded: {_line(error)}") from error
            self._client.log_model_artifacts(model.model_id, str(saved))
        outputs = self._client.get_run(run).outputs
        if model.model_id not in [each.model_id for each in (outputs.model_outputs if outputs else [])]:
            self._client.log_outputs(run, [LoggedModelOutput(model.model_id, step=0)])
        self._client.finalize_logged_model(model.model_id, "READY")

    def finish(self, run: str, record: Record, folder: Path) -> None:
        """The end of a run."""
        self._client.set_terminated(run, record["status"], record["time"])


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
        raise ValueError("it gives no answer to the input example")
    _free_length(description)
    description.save(str(place / "MLmodel"))


def _free_length(description: Any) -> None:
    """Let recordings be of any length: their second axis is time, whatever the example's had."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    signature = description.signature
    inputs = [
        TensorSpec(each.type, (-1, -1, *each.shape[2:])) if len(each.shape) > 2 else each for each in signature.inputs.inputs
    ]
    description.signature = ModelSignature(Schema(inputs), signature.outputs)


def _resolve(uri: str | None) -> str:
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    if uri.startswith(SQLITE):
        return SQLITE + str(Path(uri.removeprefix(SQLITE)).expanduser().absolute())
    if urlparse(uri).scheme in ("", "file") and not uri.startswith("databricks"):
        raise KdcoreError(
            f"MLflow no longer tracks into a folder of files ({uri}): write sqlite:///FILE.db or http://HOST:PORT"
        )
    return uri


def _folder_of(uri: str) -> Path | None:
    file = database_file(uri)
    return file.parent if file else None


def _shown(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//", uri)


def _trouble(uri: str, error: Exception) -> str:
    return f"MLflow at {_shown(uri)} cannot be used ({_line(error)})"


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 400 else text[:399] + "…"


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
