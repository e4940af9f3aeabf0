"""The commands ``sync`` and ``register``; what they need is imported inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def sync(run_id: Annotated[str, typer.Argument(help="Run id, or the run's folder.")]) -> None:
    """Send records that were kept while MLflow was unreachable."""
    from kdcore import find_run
    from kdcore_mlflow.tracker import sync as send

    path = Path(run_id)
    folder = path if (path / "journal.jsonl").exists() else find_run(run_id) / "tracking"
    print(f"{send(folder)} records sent")


def register(
    run_id: Annotated[str, typer.Argument(help="Id of a tracked run, or the run's folder.")],
    name: Annotated[str, typer.Argument(help="Name of the registered model.")],
    alias: Annotated[str, typer.Option(help="Alias for this version, e.g. champion.")] = "",
    seed: Annotated[int | None, typer.Option(help="Seed of the run; by default the first.")] = None,
    student: Annotated[str, typer.Option(help="Student, if there are several; ensemble for all of them.")] = "",
) -> None:
    """Register a run's student in the MLflow model registry."""
    from kdcore_mlflow.registry import register_student

    print(register_student(run_id, name, alias, seed, student))
