"""A recipe with other values, chosen by accuracy on the validation part."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock
from optuna.trial import FrozenTrial, TrialState

from kdcore import ConsoleListener, KdcoreError, Recipe, RunJournal, dry_run, load_recipe, plugin_manager, runs_folder
from kdcore_compare.output import format_for, put
from kdcore_compare.processes import Job, run_jobs
from kdcore_compare.queue import Queue
from kdcore_compare.space import Space, as_overrides, space
from kdcore_compare.tables import Format, Table, as_markdown
from kdcore_compare.trials import run_trial

PAUSE = 1.0
"""Between two looks at what other workers do, in seconds."""

PATIENCE, LOOK = 30.0, 0.2
"""How long points wait for MLflow to take up the sweep's own run, and between two looks, in seconds."""

STATES = {TrialState.COMPLETE: "", TrialState.PRUNED: "stopped early", TrialState.RUNNING: "runs", TrialState.WAITING: "waits"}


def sweep(
    source: str,
    overrides: Sequence[str],
    grid: Sequence[str],
    search: int = 0,
    ranges: Sequence[str] = (),
    storage: str = "",
    study: str = "",
    prune: bool = True,
    jobs: int = 1,
    form: Format = "rich",
    output: Path | None = None,
) -> None:
    """Run every point that nobody has run, and put out the table once all are done.

    Args:
        source: The recipe.
        overrides: ``key=value`` each, of every point.
        grid: ``key=value,value`` each.
        search: How many points to choose; 0 for the whole grid.
        ranges: ``key=low:high[:log][:int]`` each.
        storage: URL of the database; a file in the folder of runs by default.
        study: The sweep's name there.
        prune: Whether a search may stop points early.
        jobs: Workers on this machine.
        form: Of the table.
        output: Its file; the terminal by default.

    Raises:
        KdcoreError: If there is no validation part to choose by, or a value is wrong.
        UsageError: If there can be no database at `storage`, or the file's ending says no format.
    """
    form = format_for(form, output)
    points = space(source, overrides, grid, search, ranges)
    recipe = _fit_to_choose_by(points)
    home = runs_folder() / "sweeps"
    home.mkdir(parents=True, exist_ok=True)
    name = study or f"{recipe.name}-{points.identity(recipe)}"
    url = storage or f"sqlite:///{home / 'sweeps.db'}"
    with FileLock(home / f"{name}.begin.lock"):  # workers that begin at once would all make the database's tables
        queue = Queue(url, name, points.points(), home / name, prune and bool(search))
    try:
        if jobs > 1:
            words = _command(points, grid, ranges, storage, study, prune)
            run_jobs([Job(f"worker {number + 1}", words) for number in range(jobs)], jobs, home / name / "logs", _say)
        _work(points, queue, recipe, home / name)
        table, records = sweep_table(points, queue.trials(), recipe)
        _track_end(queue, recipe, home / name, table)
    finally:
        queue.close()
    put([table], records, form, output)


def _fit_to_choose_by(points: Space) -> Recipe:
    recipe = load_recipe(points.source, points.overrides)
    if recipe.data.labels == "withheld":
        raise KdcoreError("labels are withheld in this recipe: choosing by validation accuracy would make use of them")
    points.check()
    first = as_overrides(points.points()[0])
    dry_run(points.source, [*points.overrides, *first, "baseline=false"], part="validation")
    return recipe


def _command(points: Space, grid: Sequence[str], ranges: Sequence[str], storage: str, study: str, prune: bool) -> list[str]:
    """What a worker is started with."""
    words = ["sweep", points.source, *points.overrides]
    words += [word for each in grid for word in ("--grid", each)] + [word for each in ranges for word in ("--range", each)]
    words += ["--search", str(points.search)] if points.search else []
    words += [word for name, value in (("--storage", storage), ("--study", study)) if value for word in (name, value)]
    return words if prune else [*words, "--no-prune"]


def _work(points: Space, queue: Queue, recipe: Recipe, folder: Path) -> None:
    from rich.console import Console

    tags, waited = _tags(queue, recipe, folder), False
    with ConsoleListener(Console(stderr=True)) as listener:
        while True:
            trial = queue.take()
            if trial is not None:
                run_trial(points, trial, queue, tags, listener, queue.prune, _say)
            elif queue.unfinished():
                if not waited:
                    waited = True
                    _say("no point is left to begin; waiting for other workers")
                time.sleep(PAUSE)
            else:
                return


def _tags(queue: Queue, recipe: Recipe, folder: Path) -> dict[str, str]:
    """Of every point's MLflow run; they make it a child of the sweep's."""
    with FileLock(folder / "tracking.lock"):
        parent = queue.study.user_attrs.get("mlflow_parent")
        if parent is None:
            journal = _journal(recipe, folder)
            params = {"points": len(queue.points), "recipe": recipe.name}
            journal.start("sweep", f"sweep {queue.name}", None, {"sweep": queue.name, "kdcore.kind": "sweep"}, params)
            journal.commit()
            _await_sweep(journal)
            journal.close()
            parent = journal.tracker.run_ids().get("sweep")
            if parent:
                queue.study.set_user_attr("mlflow_parent", parent)
            else:
                _say(f"MLflow does not know the sweep yet: this worker's points are found by the tag sweep={queue.name} alone")
    return {"sweep": queue.name} | ({"mlflow.parentRunId": parent} if parent else {})


def _await_sweep(journal: RunJournal) -> None:
    """Wait until MLflow has the sweep's run: a tracker that is closed gives up after a few failures."""
    until = time.monotonic() + (PATIENCE if journal.tracker.address else 0)
    while "sweep" not in journal.tracker.run_ids() and time.monotonic() < until:
        time.sleep(LOOK)


def _track_end(queue: Queue, recipe: Recipe, folder: Path, table: Table) -> None:
    """Track the table and the best point with the sweep's own run."""
    path = folder / "table.md"
    path.write_text(as_markdown(table), encoding="utf-8")
    best = _best(queue.trials())
    with FileLock(folder / "tracking.lock"):
        if best is None or queue.study.user_attrs.get("tracked") == len(queue.points):
            return
        journal = _journal(recipe, folder)
        journal.metrics("sweep", {"best/validation/accuracy": best.value or 0.0, "best/point": best.user_attrs["point"]}, 0)
        journal.tags("sweep", {f"best.{path}": value for path, value in best.params.items()})
        journal.artifact("sweep", path)
        journal.finish("sweep")
        journal.commit()
        journal.close()
        queue.study.set_user_attr("tracked", len(queue.points))


def _journal(recipe: Recipe, folder: Path) -> RunJournal:
    tracker = plugin_manager().hook.open_tracker(recipe=recipe, say=_say)
    return RunJournal(folder / "tracking", tracker, recipe.tracking.experiment or recipe.name)


def sweep_table(points: Space, trials: Sequence[FrozenTrial], recipe: Recipe) -> tuple[Table, list[dict[str, object]]]:
    """Every point, the best first, as a table and as records."""
    paths = [key.path for key in points.keys]
    done = sorted((each for each in trials if each.state == TrialState.COMPLETE), key=lambda each: -(each.value or 0))
    others = [each for each in trials if each.state != TrialState.COMPLETE]
    rows, records = [], []
    for each in [*done, *others]:
        accuracies = [100 * value for value in each.user_attrs.get("accuracies", [])]
        said = f"{np.mean(accuracies):.1f}" if accuracies else ""
        said += f" ± {np.std(accuracies, ddof=1):.1f}" if len(accuracies) > 1 else ""
        state = STATES.get(each.state, each.user_attrs.get("error", "lost its worker too often").splitlines()[0])
        values = [_short(each.params.get(path)) for path in paths]
        rows.append([str(each.user_attrs["point"]), *values, said, state])
        record = {"point": each.user_attrs["point"], **{path: each.params.get(path) for path in paths}}
        reached = each.value if each.state == TrialState.COMPLETE else None
        records.append(record | {"validation_accuracy": reached, "state": each.state.name.lower()})
    notes = [
        f"Chosen by accuracy on the validation part, seeds {', '.join(map(str, recipe.seeds))}. "
        "Test samples were not looked at. The best of many is better here than it will be on the test part."
    ]
    if done:
        values = as_overrides({path: str(value) for path, value in done[0].params.items()})
        notes.append("The best: " + shlex.join(["kdcore", "run", points.source, *points.overrides, *values]))
    headings = ["point", *paths, "validation accuracy, %", ""]
    return Table(f"Sweep of {recipe.name}, {len(rows)} points", headings, rows, notes, strong=[0] if done else []), records


def _best(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    done = [each for each in trials if each.state == TrialState.COMPLETE]
    return max(done, key=lambda each: each.value or 0.0) if done else None


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def _say(text: str) -> None:
    print(text, file=sys.stderr)
