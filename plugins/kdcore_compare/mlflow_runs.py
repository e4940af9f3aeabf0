"""Download finished runs from MLflow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kdcore import FinishedRun, KdcoreError, UsageError, one_line, read_run, tracking_address, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}
ARTIFACTS = ("run.json", "recipe.yaml", "results")
SQLITE = "sqlite:///"


def mlflow_client(uri: str | None = None) -> MlflowClient:
    """An MLflow client for `uri`, else ``$MLFLOW_TRACKING_URI``, else ``mlflow.db`` in the current folder.

    Raises:
        UsageError: If the database file does not exist; MLflow would create it.
        KdcoreError: If MLflow cannot use it.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    uri = tracking_address(uri)
    if uri.startswith(SQLITE) and not (file := Path(uri.removeprefix(SQLITE))).is_file():
        raise UsageError(f"the MLflow database {file} does not exist; set the tracking URI with --uri")
    with _one_line_errors(uri):
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def _one_line_errors(uri: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
        raise KdcoreError(f"MLflow at {without_password(uri)} could not be read: {one_line(error)}") from error


def experiment_runs(experiment: str, folder: Path, uri: str | None = None, filter_string: str = "") -> Iterator[FinishedRun]:
    """Download the finished runs of an experiment, oldest first.

    Args:
        experiment: Name of the experiment.
        folder: Folder to download to.
        uri: Tracking URI of MLflow.
        filter_string: Filter in MLflow's search syntax, e.g. ``tags.dataset = 'utd-mhad'``.

    Raises:
        UsageError: If MLflow cannot parse the filter.
        KdcoreError: If the experiment does not exist or has no finished run of kdcore.
    """
    mlflow = mlflow_client(uri)
    with _one_line_errors(mlflow.tracking_uri):
        found = mlflow.get_experiment_by_name(experiment)
        if found is None:
            known = ", ".join(each.name for each in mlflow.search_experiments())
            raise KdcoreError(f"MLflow has no experiment {experiment!r} (available: {known})")
        runs = [
            run.info.run_id for run in _search(mlflow, found.experiment_id, filter_string) if "recipe_hash" in run.data.tags
        ]
    if not runs:
        raise KdcoreError(
            f"experiment {experiment!r} has no finished run of kdcore"
            + (f" that matches {filter_string!r}" if filter_string else "")
        )
    for run_id in runs:
        yield download_run(run_id, folder, uri)


def _search(mlflow: MlflowClient, experiment: str, filter_string: str) -> list[Run]:
    from mlflow.exceptions import MlflowException

    wanted = " and ".join(each for each in ("attributes.status = 'FINISHED'", filter_string) if each)
    try:
        return mlflow.search_runs([experiment], wanted, order_by=["attributes.start_time ASC"])
    except MlflowException as error:
        if not filter_string or error.error_code not in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
            raise
        reason = one_line(error).removesuffix(".")
        raise UsageError(f"--filter {filter_string!r}: {reason}; write it as in \"tags.dataset = 'utd-mhad'\"") from error


def download_run(run_id: str, folder: Path, uri: str | None = None) -> FinishedRun:
    """Download a run by its MLflow run id, or by that of one of its seeds.

    Raises:
        KdcoreError: If MLflow has no such run, or not all files of it.
    """
    from mlflow.exceptions import MlflowException

    mlflow = mlflow_client(uri)
    try:
        run = mlflow.get_run(run_id)
        parent = run.data.tags.get("mlflow.parentRunId")
        root = run_id if "recipe_hash" in run.data.tags or parent is None else parent
        place = folder / root
        place.mkdir(parents=True, exist_ok=True)
        for name in ARTIFACTS:
            mlflow.download_artifacts(root, name, str(place))
    except (MlflowException, OSError) as error:
        raise KdcoreError(f"MLflow has no finished run {run_id!r}: {error}") from error
    return read_run(place)
