"""Download of runs from MLflow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kdcore import FinishedRun, KdcoreError, UsageError, one_line, read_run
from kdcore_mlflow.database import SQLITE
from kdcore_mlflow.tracker import tracking_address, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "MLFLOW_LOGGING_LEVEL": "ERROR"}
NEEDED = ("run.json", "recipe.yaml", "results")


def client(uri: str | None = None) -> MlflowClient:
    """Return an MLflow client for `uri`, or ``$MLFLOW_TRACKING_URI``, or ``mlflow.db`` in the current folder.

    Raises:
        UsageError: If that is a file that does not exist, which MLflow would create.
        KdcoreError: If MLflow cannot use it.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    uri = tracking_address(uri)
    if uri.startswith(SQLITE) and not (file := Path(uri.removeprefix(SQLITE))).is_file():
        raise UsageError(f"MLflow database {file} does not exist; set --uri to where runs are tracked")
    with _reading(uri):
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def _reading(uri: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
        raise KdcoreError(f"MLflow at {without_password(uri)} cannot be used: {one_line(error)}") from error


def tracked_runs(experiment: str, folder: Path, uri: str | None = None, matching: str = "") -> Iterator[FinishedRun]:
    """Return the finished runs of an experiment, oldest first.

    Args:
        experiment: Name of the experiment.
        folder: Folder for downloaded files.
        uri: MLflow tracking URI.
        matching: Filter in MLflow's search syntax, e.g. ``tags.dataset = 'utd-mhad'``.

    Raises:
        UsageError: If MLflow does not accept the filter.
        KdcoreError: If the experiment does not exist, or contains no finished run of kdcore.
    """
    mlflow = client(uri)
    with _reading(mlflow.tracking_uri):
        found = mlflow.get_experiment_by_name(experiment)
        if found is None:
            known = ", ".join(each.name for each in mlflow.search_experiments())
            raise KdcoreError(f"MLflow has no experiment {experiment!r} (available: {known})")
        runs = [run.info.run_id for run in _search(mlflow, found.experiment_id, matching) if "recipe_hash" in run.data.tags]
    if not runs:
        raise KdcoreError(
            f"experiment {experiment!r} has no finished run of kdcore" + (f" with {matching}" if matching else "")
        )
    for run_id in runs:
        yield tracked_run(run_id, folder, uri)


def _search(mlflow: MlflowClient, experiment: str, matching: str) -> list[Run]:
    from mlflow.exceptions import MlflowException

    wanted = " and ".join(each for each in ("attributes.status = 'FINISHED'", matching) if each)
    try:
        return mlflow.search_runs([experiment], wanted, order_by=["attributes.start_time ASC"])
    except MlflowException as error:
        if not matching or error.error_code not in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
            raise
        reason = one_line(error).removesuffix(".")
        raise UsageError(f"--filter {matching!r}: {reason}; write it as in \"tags.dataset = 'utd-mhad'\"") from error


def tracked_run(run_id: str, folder: Path, uri: str | None = None) -> FinishedRun:
    """Return a run by its MLflow ID: that of the recipe, or of one of its seeds.

    Raises:
        KdcoreError: If MLflow has no such run, or it is not completely tracked.
    """
    from mlflow.exceptions import MlflowException

    mlflow = client(uri)
    try:
        run = mlflow.get_run(run_id)
        parent = run.data.tags.get("mlflow.parentRunId")
        root = run_id if "recipe_hash" in run.data.tags or parent is None else parent
        place = folder / root
        place.mkdir(parents=True, exist_ok=True)
        for name in NEEDED:
            mlflow.download_artifacts(root, name, str(place))
    except (MlflowException, OSError) as error:
        raise KdcoreError(f"MLflow has no finished run {run_id!r}: {error}") from error
    return read_run(place)
