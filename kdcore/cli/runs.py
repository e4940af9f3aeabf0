"""Commands that list and delete runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from kdcore.cache import Answers
from kdcore.cli.arguments import complete_run
from kdcore.errors import KdcoreError, UsageError
from kdcore.runs.paths import began, find_run, known_runs, runs_folder

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="List or delete runs.")


@app.command("list")
def list_runs() -> None:
    """List the runs, oldest first.

    Shows start time, state, gain by distillation and size.
    """
    from kdcore.cli.cache import size_of
    from kdcore.cli.tables import new_table, output_console, show_table, size_text

    root = runs_folder()
    folders = sorted((root / name for name in known_runs()), key=_began)
    if not folders:
        print(f"no runs in {root}")
        return
    table = new_table("run", "began", "state", "gain", "size")
    for folder in folders:
        table.add_row(
            folder.name,
            f"{_began(folder).astimezone():%Y-%m-%d %H:%M}",
            state_of(folder),
            _gain(folder),
            size_text(size_of(folder)),
        )
    console = output_console()
    show_table(console, table)
    gain = (
        "gain: accuracy of the distilled student minus the baseline, in points, with its 95 % interval; other metrics are named"
    )
    console.print(gain, highlight=False)


@app.command("rm")
def remove_runs(
    run_ids: Annotated[list[str], typer.Argument(help="Run IDs, or the folders of runs.", autocompletion=complete_run)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking for confirmation.")] = False,
) -> None:
    """Delete runs and their folders."""
    from kdcore.cli.cache import size_of
    from kdcore.cli.tables import size_text

    folders = list(dict.fromkeys(find_run(each) for each in run_ids))
    for folder in folders:
        if state_of(folder) == "running":
            raise UsageError(f"{folder.name} is running; stop it first")
    for folder in folders:
        print(f"{folder.name}  {size_text(size_of(folder))}")
    if not yes and not typer.confirm(f"Delete {'this run' if len(folders) == 1 else f'these {len(folders)} runs'}?"):
        raise typer.Exit(1)
    for folder in folders:
        shutil.rmtree(folder)


def state_of(folder: Path) -> str:
    """Return the state of a run: ``finished``, ``running``, ``interrupted`` or ``damaged``."""
    from filelock import FileLock, Timeout

    from kdcore.runs.lock import LOCK

    lock = folder / LOCK
    if lock.exists():
        try:
            with FileLock(lock, timeout=0):
                pass
        except Timeout:
            return "running"
    progress = folder / "progress.json"
    try:
        content = json.loads(progress.read_text(encoding="utf-8")) if progress.exists() else {}
        return "finished" if content.get("complete") else "interrupted"
    except (OSError, ValueError, AttributeError):
        return "damaged"


def _began(folder: Path) -> datetime:
    return began(folder.name) or datetime.fromtimestamp((folder / "recipe.yaml").stat().st_mtime, UTC)


def _gain(folder: Path) -> str:
    """Return the gain of a finished run as text. It is cached until the run's results change."""
    if state_of(folder) != "finished":
        return ""
    results = {path.name: path.stat().st_mtime_ns for path in sorted((folder / "results").glob("*.npz"))}
    cached = Answers(f"run {folder}", lambda stored: stored == results)
    gain: Any = cached.get("gain")
    if not isinstance(gain, str):
        gain = _computed_gain(folder)
        cached.put("gain", gain, results)
    return gain


def _computed_gain(folder: Path) -> str:
    from kdcore.runs.gain import paired_difference
    from kdcore.runs.metrics import Evaluation
    from kdcore.runs.records import read_run

    try:
        run = read_run(folder)
    except KdcoreError:
        return ""
    if "baseline" not in run.outcomes:
        return "no baseline" if run.facts.distilled else "–"
    distilled, baseline = (next(iter(run.outcomes[arm].values())).students for arm in ("distilled", "baseline"))
    student = next(name for name in distilled if name in baseline and name in run.facts.distilled)

    def of(arm: str) -> list[Evaluation]:
        outcomes: Mapping[int, Any] = run.outcomes[arm]
        return [outcomes[seed].evaluations()[student] for seed in run.facts.seeds]

    difference = paired_difference(of("distilled"), of("baseline"))
    metric = difference.metric
    return difference.amount if metric.name == "accuracy" else f"{difference.amount} {metric.heading}"
