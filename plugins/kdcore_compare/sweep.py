"""Training of a recipe with different values, ranked by results on the validation split."""

from __future__ import annotations

import hashlib
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.trial import TrialState

from kdcore import (
    Builder,
    ConsoleListener,
    KdcoreError,
    Metric,
    Provenance,
    Recipe,
    RunJournal,
    UsageError,
    dry_run,
    load_recipe,
    plugin_manager,
    provenance_of,
    runs_folder,
)
from kdcore_compare.parallel import SERIAL, Parallel
from kdcore_compare.search_space import SearchSpace, as_overrides, parse_space
from kdcore_compare.tables import TO_TERMINAL, Output, Table, stderr_console, to_markdown
from kdcore_compare.trial_queue import TrialQueue
from kdcore_compare.trials import run_trial

PAUSE = 1.0
"""Interval at which other workers are polled, in seconds."""

MLFLOW_TIMEOUT, POLL = 30.0, 0.2
"""Time to wait for MLflow to create the run of the sweep, and the interval at which it is polled, in seconds."""

STATES = {TrialState.COMPLETE: "", TrialState.PRUNED: "pruned", TrialState.RUNNING: "running", TrialState.WAITING: "waiting"}


def sweep(
    source: str,
    overrides: Sequence[str],
    grid: Sequence[str],
    search: int = 0,
    ranges: Sequence[str] = (),
    storage: str = "",
    study: str = "",
    prune: bool = True,
    parallel: Parallel = SERIAL,
    output: Output = TO_TERMINAL,
) -> None:
    """Run every point that no worker has run, and write the table once all are done.

    Args:
        source: Path or name of the recipe.
        overrides: Overrides as ``key=value`` for all points.
        grid: ``key=value,value`` each.
        search: Number of points for Optuna to choose; 0 for the full grid.
        ranges: ``key=low:high[:log][:int]`` each.
        storage: URL of the database. Default: a file in the folder of runs.
        study: Name of the study in the database.
        prune: True if Optuna may stop points of a search early.
        parallel: Number of workers, and where they run.
        output: Where to write the tables.

    Raises:
        KdcoreError: If there is no validation split, or a value is not valid.
        UsageError: If the database cannot be opened.
    """
    space = parse_space(source, overrides, grid, search, ranges)
    parallel.check()
    recipe, metric, now = _checked_recipe(space)
    home = runs_folder() / "sweeps"
    home.mkdir(parents=True, exist_ok=True)
    family = f"{recipe.name}-{space.identity(recipe)}-"
    name = study or family + _digest(now)
    url = storage or f"sqlite:///{home / 'sweeps.db'}"
    with FileLock(home / f"{name}.begin.lock"):  # workers that start together would all create the tables
        queue = TrialQueue(url, name, space.points(), home / name, metric, prune and bool(search))
    try:
        _check_provenance(queue, now, family)
        if parallel.active:
            words = _worker_command(space, grid, ranges, storage, study, prune)
            workers = {f"worker {number + 1}": words for number in range(parallel.at_once)}
            parallel.run(workers, home / name / "logs", _say)
        _work(space, queue, recipe, home / name)
        table, records = sweep_table(space, queue, recipe)
        _track_result(queue, recipe, home / name, table)
    finally:
        queue.close()
    output.write([table], records)


def _checked_recipe(space: SearchSpace) -> tuple[Recipe, Metric, list[Provenance]]:
    """Return the recipe, its ranking metric and the current provenance, after checking that all points can be run."""
    recipe = load_recipe(space.source, space.overrides)
    if recipe.data.labels == "withheld":
        raise KdcoreError("a sweep uses the labels of the validation split, but the recipe withholds labels (data.labels)")
    target = Builder(recipe).dataset().target
    now = [provenance_of(each) for each in space.recipes()]
    first = as_overrides(space.points()[0])
    dry_run(space.source, [*space.overrides, *first, "baseline=false"], split="validation")
    return recipe, target.metric(target.primary), now


def _digest(now: Sequence[Provenance]) -> str:
    return hashlib.sha256("".join(each.digest for each in now).encode()).hexdigest()[:8]


def _check_provenance(queue: TrialQueue, now: Sequence[Provenance], family: str) -> None:
    """Record the provenance of a new study, and check that of an existing one.

    Raises:
        UsageError: If recordings, files, versions or code have changed since the study began.
    """
    content = [asdict(each) for each in now]
    before = queue.study.user_attrs.get("provenance")
    if before is not None and before != content:
        reasons = _changes(before, now)
        raise UsageError(f"the study '{queue.name}' cannot be continued: {reasons}; choose another name with --study")
    if before is None:
        queue.study.set_user_attr("provenance", content)
        for other, theirs in queue.similar_studies(family).items():
            _say(f"the sweep {other} is not continued: {_changes(theirs, now)}")


def _changes(before: Sequence[Mapping[str, Any]], now: Sequence[Provenance]) -> str:
    pairs = zip(before, now, strict=False)
    reasons = dict.fromkeys(reason for then, each in pairs for reason in each.changes_since(Provenance(**then)))
    return "; ".join(reasons) or "its values are different"


def _worker_command(
    space: SearchSpace, grid: Sequence[str], ranges: Sequence[str], storage: str, study: str, prune: bool
) -> list[str]:
    """Return the arguments of ``kdcore`` that start a worker."""
    words = ["sweep", space.source, *space.overrides]
    words += [word for each in grid for word in ("--grid", each)] + [word for each in ranges for word in ("--range", each)]
    words += ["--search", str(space.search)] if space.search else []
    words += [word for name, value in (("--storage", storage), ("--study", study)) if value for word in (name, value)]
    return words if prune else [*words, "--no-prune"]


def _work(space: SearchSpace, queue: TrialQueue, recipe: Recipe, folder: Path) -> None:
    tags, waited = _trial_tags(queue, recipe, folder), False
    with ConsoleListener(stderr_console()) as listener:
        while True:
            trial = queue.take()
            if trial is not None:
                run_trial(space, trial, queue, tags, listener, queue.prune, _say)
            elif queue.unfinished():
                if not waited:
                    waited = True
                    _say("waiting for the points of other workers")
                time.sleep(PAUSE)
            else:
                return


def _trial_tags(queue: TrialQueue, recipe: Recipe, folder: Path) -> dict[str, str]:
    """Return tags for the MLflow run of each trial, which make it a child of the sweep's run."""
    with FileLock(folder / "tracking.lock"):
        parent = queue.study.user_attrs.get("mlflow_parent")
        if parent is None:
            journal = _journal(recipe, folder)
            params = {"points": len(queue.points), "recipe": recipe.name}
            journal.start("sweep", f"sweep {queue.name}", None, {"sweep": queue.name, "kdcore.kind": "sweep"}, params)
            journal.commit()
            _wait_for_mlflow(journal)
            journal.close()
            parent = journal.tracker.run_ids().get("sweep")
            if parent:
                queue.study.set_user_attr("mlflow_parent", parent)
            else:
                _say(f"MLflow has not created the sweep's run yet; find this worker's points by the tag sweep={queue.name}")
    return {"sweep": queue.name} | ({"mlflow.parentRunId": parent} if parent else {})


def _wait_for_mlflow(journal: RunJournal) -> None:
    """Wait until MLflow has created the run of the sweep, since a closed tracker gives up after a few failures."""
    until = time.monotonic() + (MLFLOW_TIMEOUT if journal.tracker.address else 0)
    while "sweep" not in journal.tracker.run_ids() and time.monotonic() < until:
        time.sleep(POLL)


def _track_result(queue: TrialQueue, recipe: Recipe, folder: Path, table: Table) -> None:
    """Log the table and the best point to the run of the sweep."""
    path = folder / "table.md"
    path.write_text(to_markdown(table), encoding="utf-8")
    ranked = queue.best_first()
    with FileLock(folder / "tracking.lock"):
        if not ranked or queue.study.user_attrs.get("tracked") == len(queue.points):
            return
        journal, best = _journal(recipe, folder), ranked[0]
        score = f"best/validation/{queue.metric.name}"
        journal.metrics("sweep", {score: best.value or 0.0, "best/point": best.user_attrs["point"]}, 0)
        journal.tags("sweep", {f"best.{path}": value for path, value in best.params.items()})
        journal.artifact("sweep", path)
        journal.finish("sweep")
        journal.commit()
        journal.close()
        queue.study.set_user_attr("tracked", len(queue.points))


def _journal(recipe: Recipe, folder: Path) -> RunJournal:
    tracker = plugin_manager().hook.open_tracker(recipe=recipe, say=_say)
    return RunJournal(folder / "tracking", tracker, recipe.tracking.experiment or recipe.name)


def sweep_table(space: SearchSpace, queue: TrialQueue, recipe: Recipe) -> tuple[Table, list[dict[str, object]]]:
    """Return all points, best first, as a table and as records."""
    paths, metric = [key.path for key in space.keys], queue.metric
    done = queue.best_first()
    others = [each for each in queue.trials() if each.state != TrialState.COMPLETE]
    rows, records = [], []
    for each in [*done, *others]:
        cell = metric.spread(each.user_attrs.get("scores", []))
        state = STATES.get(each.state, each.user_attrs.get("error", "its worker died too often").splitlines()[0])
        values = [_format_value(each.params.get(path)) for path in paths]
        rows.append([str(each.user_attrs["point"]), *values, cell, state])
        record = {"point": each.user_attrs["point"], **{path: each.params.get(path) for path in paths}}
        value = each.value if each.state == TrialState.COMPLETE else None
        records.append(record | {f"validation_{metric.name}": value, "state": each.state.name.lower()})
    lower = "" if metric.higher_is_better else "; lower is better"
    notes = [
        f"Ranked by {metric.title} on the validation split{lower}, seeds {', '.join(map(str, recipe.seeds))}. "
        f"Test samples were not used. The {metric.title} of the best point is optimistic; evaluate it on the test split."
    ]
    if done:
        if (tied := sum(each.value == done[0].value for each in done)) > 1:
            notes.append(f"{tied} points share the best {metric.title}; the best point is the first of them.")
        values = as_overrides({path: str(value) for path, value in done[0].params.items()})
        notes.append("Best point: " + shlex.join(["kdcore", "run", space.source, *space.overrides, *values]))
    headings = ["point", *paths, f"validation {metric.heading}", "state"]
    if not any(row[-1] for row in rows):  # all points are complete
        headings, rows = headings[:-1], [row[:-1] for row in rows]
    return Table(f"Sweep of {recipe.name}, {len(rows)} points", headings, rows, notes, strong=[0] if done else []), records


def _format_value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def _say(text: str) -> None:
    print(text, file=sys.stderr)
