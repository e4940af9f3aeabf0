"""Registration of students of tracked runs in MLflow's model registry."""

from __future__ import annotations

from kdcore import KdcoreError, UsageError, find_run, one_line
from kdcore_mlflow.tracker import tracked_runs


def register_student(run_id: str, name: str, alias: str = "", seed: int | None = None, student: str = "") -> str:
    """Register a run's student as a new version of a model, and return its name and version.

    Args:
        run_id: ID, folder or recipe name of a tracked run.
        name: Name of the registered model, which is created if it does not exist.
        alias: Alias for this version, which is removed from other versions.
        seed: Seed of the run. Default: the first seed.
        student: Name of the student if there are several; ``ensemble`` for all.

    Raises:
        KdcoreError: If the run has no such model at its tracking server, or the server is unavailable.
    """
    uri, runs = tracked_runs(find_run(run_id))
    seeds = sorted(int(local.removeprefix("seed-")) for local in runs if local.startswith("seed-"))
    if not seeds:
        raise KdcoreError(f"{run_id}: not sent to MLflow yet; run kdcore sync {run_id}")
    chosen = seeds[0] if seed is None else seed
    if chosen not in seeds:
        raise UsageError(f"{run_id}: no seed {chosen} (available: {', '.join(map(str, seeds))})")
    from mlflow.exceptions import MlflowException

    try:
        version = _version(uri, runs[f"seed-{chosen}"], name, alias, student)
    except MlflowException as error:
        raise KdcoreError(f"MLflow at {uri}: {one_line(error)}") from error
    return f"{name} version {version}" + (f", models:/{name}@{alias}" if alias else f", models:/{name}/{version}")


def _version(uri: str, run: str, name: str, alias: str, student: str) -> str:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.get_run(run).info.experiment_id
    models = {model.name: model for model in client.search_logged_models([experiment], f"source_run_id = '{run}'")}
    wanted = student or ("ensemble" if "ensemble" in models else next(iter(models), ""))
    if wanted not in models:
        raise UsageError(f"run {run} has no model {wanted!r} (available: {', '.join(models) or 'none'})")
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    model = models[wanted]
    version = client.create_model_version(name, model.artifact_location, run_id=run, model_id=model.model_id).version
    if alias:
        client.set_registered_model_alias(name, alias, version)
    return str(version)
