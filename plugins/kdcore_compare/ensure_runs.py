"""Reuse of finished runs of a recipe, resumption of interrupted ones, and training of missing seeds.

A run is only reused or resumed if nothing that its results depend on has changed: see `kdcore.Provenance`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from kdcore import (
    FinishedRun,
    KdcoreError,
    Provenance,
    Recipe,
    RunListener,
    RunState,
    finished_runs,
    load_recipe,
    provenance_of,
    read_facts,
    resume,
    run,
    runs_folder,
)

Split = Literal["test", "validation"]


def ensure_runs(
    source: str,
    overrides: Sequence[str],
    split: Split = "test",
    listener: RunListener | None = None,
    say: Callable[[str], None] = print,
) -> list[FinishedRun]:
    """Return finished runs that cover all seeds of a recipe, after training missing seeds.

    Only one process at a time trains a seed of a configuration. Others wait and reuse its run. The lock of a killed process is
    released.

    Args:
        source: Path or name of the recipe.
        overrides: Overrides as ``key=value``.
        split: Split that runs are evaluated on.
        listener: Receives the progress of training.
        say: Called with each line for the user.
    """
    recipe = load_recipe(source, overrides)
    with _lock(recipe, split, say):
        now = provenance_of(recipe)
        if missing := missing_seeds(recipe, split, now):
            report_changes(recipe, split, now, say)
            chosen = [*overrides, f"seeds={missing}"]
            interrupted = interrupted_run(load_recipe(source, chosen), split, now, say)
            callbacks = [listener] if listener else []
            if interrupted:
                resume(interrupted.name, callbacks=callbacks)
            else:
                run(source, chosen, callbacks=callbacks, command=["kdcore", "run", source, *chosen], split=split)
        return reusable_runs(recipe, split, now)


def missing_seeds(recipe: Recipe, split: Split = "test", now: Provenance | None = None) -> list[int]:
    """Return the recipe's seeds that no reusable run contains."""
    done = {seed for each in reusable_runs(recipe, split, now) for seed in each.facts.seeds}
    return [seed for seed in recipe.seeds if seed not in done]


def reusable_runs(recipe: Recipe, split: Split = "test", now: Provenance | None = None) -> list[FinishedRun]:
    """Return finished runs that are still valid for this recipe.

    They have the same configuration, recordings, files, code, and versions of kdcore and plugins; at least one of the recipe's
    seeds; and a baseline if the recipe requires one.

    Args:
        recipe: The recipe.
        split: Split that runs are evaluated on.
        now: Current provenance; computed if None.
    """
    now = now or provenance_of(recipe)
    return [each for each in _candidates(recipe, split) if not now.changes_since(each.facts)]


def report_changes(recipe: Recipe, split: Split, now: Provenance, say: Callable[[str], None]) -> None:
    """Report finished runs of a recipe that are not reused, with the reasons."""
    for each in _candidates(recipe, split):
        if reasons := now.changes_since(each.facts):
            say(f"{each.folder.name} is not reused: {'; '.join(reasons)}")


def _candidates(recipe: Recipe, split: Split) -> list[FinishedRun]:
    """Return finished runs of the same configuration with the required seeds and baseline."""
    return [
        each
        for each in finished_runs(recipe.variant, split)
        if set(each.facts.seeds) & set(recipe.seeds) and (not recipe.baseline or _baseline_settled(each))
    ]


def interrupted_run(recipe: Recipe, split: Split, now: Provenance, say: Callable[[str], None] = print) -> Path | None:
    """Return the folder of an interrupted run of this recipe that can be resumed, or None."""
    home = runs_folder()
    for folder in sorted(home.glob(f"[!.]*-{recipe.hash[:6]}*")) if home.is_dir() else ():
        if not all((folder / name).exists() for name in ("recipe.yaml", "progress.json")):
            continue
        state = RunState.read(folder)
        if state.complete or state.split != split or not _is_of(folder, recipe):
            continue
        facts = read_facts(folder)
        reasons = now.changes_since(facts) if facts else []
        if not reasons:
            return folder
        say(f"{folder.name} is not resumed: {'; '.join(reasons)}")
    return None


def _is_of(folder: Path, recipe: Recipe) -> bool:
    try:
        return load_recipe(folder / "recipe.yaml", files=False).hash == recipe.hash
    except KdcoreError:
        return False


def _baseline_settled(finished: FinishedRun) -> bool:
    """Return whether a run has trained its baseline, or would have but has no loss term without distillation."""
    return "baseline" in finished.facts.arms or load_recipe(finished.recipe, files=False).baseline


@contextmanager
def _lock(recipe: Recipe, split: Split, say: Callable[[str], None]) -> Iterator[None]:
    """Context manager that locks the seeds of a configuration, in order. Waits for other processes."""
    folder = runs_folder() / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        for seed in sorted(recipe.seeds):
            lock = FileLock(folder / f"{recipe.variant[:16]}-{seed}-{split}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                say(f"{recipe.name}, seed {seed}: waiting for another process that trains it")
                lock.acquire()
            held.callback(lock.release)
        yield
