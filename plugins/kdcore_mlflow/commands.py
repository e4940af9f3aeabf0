"""The commands ``sync`` and ``register``, which import slow modules in their bodies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def sync(
    run_id: Annotated[str, typer.Argument(help="Run ID, or the run's folder. Default: all runs with unsent records.")] = "",
) -> None:
    """Send unsent records to MLflow.

    Records are stored in the run's folder while MLflow is unavailable.
    """
    from kdcore import find_run
    from kdcore_mlflow.tracker import sync as send
    from kdcore_mlflow.unsent import folders_of_unsent

    if not run_id:
        for folder in folders_of_unsent().values():
            print(f"{folder}: {send(folder)} records sent")
        return
    path = Path(run_id)
    folder = path if (path / "journal.jsonl").exists() else find_run(run_id) / "tracking"
    print(f"{send(folder)} records sent")


def send_leftovers() -> None:
    """Send records that earlier runs could not send, at the end of a command. Lines for the user go to stderr."""
    import sys

    from kdcore_mlflow.tracker import sync as send
    from kdcore_mlflow.unsent import send_unsent

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    send_unsent(lambda folder, stop: send(folder, say=say, stop=stop.is_set), say)


def register(
    run_id: Annotated[str, typer.Argument(help="ID of a tracked run, or the run's folder.")],
    name: Annotated[str, typer.Argument(help="Name of the registered model.")],
    alias: Annotated[str, typer.Option(help="Alias for this version, e.g. champion.")] = "",
    seed: Annotated[int | None, typer.Option(help="Seed of the run. Default: the first seed.")] = None,
    student: Annotated[str, typer.Option(help="Name of the student if there are several; ensemble for all.")] = "",
) -> None:
    """Register a run's student in the MLflow model registry."""
    from kdcore_mlflow.registry import register_student

    print(register_student(run_id, name, alias, seed, student))
