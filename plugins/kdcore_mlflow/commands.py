"""The commands ``sync`` and ``register``; what they need is imported inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def sync(run_id: Annotated[str, typer.Argument(help="Id of a run, or its folder.")]) -> None:
    """Send what a run tracked while MLflow could not be reached."""
    from kdcore import find_run
    from kdcore_mlflow.tracker import sync as send

    path = Path(run_id)
    folder = path if (path / "journal.jsonl").exists() else find_run(run_id) / "tracking"
    print(f"{send(folder)} records sent")


def register(
    run_id: Annotated[str, typer.Argument(help="Id of a tracked run, or its folder.")],
    name: Annotated[str, typer.Argument(help="The registered model's name.")],
    alias: Annotated[str, typer.Option(help="Alias that this version gets, e.g. champion.")] = "",
    seed: Annotated[int | None, typer.Option(help="Which seed; the first by default.")] = None,
    student: Annotated[str, typer.Option(help="Which student, where there are several; ensemble for all as one.")] = "",
) -> None:
    """Put a run's student into MLflow's model registry."""
    from kdcore_mlflow.registry import register_student

    print(register_student(run_id, name, alias, seed, student))
