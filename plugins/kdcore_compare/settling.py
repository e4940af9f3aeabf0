"""Sees to it that a recipe has been run: takes what is finished, goes on with what was stopped, trains what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from kdcore import (
    FinishedRun,
    KdcoreError,
    Recipe,
    RunListener,
    RunState,
    finished_runs,
    load_recipe,
    resume,
    run,
    runs_folder,
)

Part = Literal["test", "validation"]


def settle(
    source: str,
    overrides: Sequence[str],
    part: Part = "test",
    listener: RunListener | None = None,
    say: Callable[[str], None] = print,
) -> list[FinishedRun]:
    """Finished runs that have all of the recipe's seeds between them.

    Only one process at a time works on a configuration; another one waits and takes what the first has trained. A process
    that is killed gives up its place.

    Args:
        source: The recipe.
        overrides: ``key=value`` each.
        part: What runs are evaluated on.
        listener: Told how training goes.
        say: Is given each line meant for the user.
    """
    recipe = load_recipe(source, overrides)
    with _place(recipe, part, say):
        missing = [seed for seed in recipe.seeds if not _has(finished(recipe, part), seed)]
        if missing:
            chosen = [*overrides, f"seeds={missing}"]
            stopped = unfinished(load_recipe(source, chosen), part)
            if stopped:
                resume(stopped.name, listener)
            else:
                run(source, chosen, listener, ["kdcore", "run", source, *chosen], part)
        return finished(recipe, part)


def missing_seeds(recipe: Recipe, part: Part = "test") -> list[int]:
    """Seeds that no finished run has."""
    runs = finished(recipe, part)
    return [seed for seed in recipe.seeds if not _has(runs, seed)]


def finished(recipe: Recipe, part: Part = "test") -> list[FinishedRun]:
    """Finished runs that have some of its seeds, and the student without distillation where the recipe wants it."""
    return [
        each
        for each in finished_runs(recipe.variant, part)
        if set(each.facts.seeds) & set(recipe.seeds) and (not recipe.baseline or _answers_for_baseline(each))
    ]


def unfinished(recipe: Recipe, part: Part = "test") -> Path | None:
    """The folder of a run of exactly this recipe that was stopped."""
    home = runs_folder()
    for folder in sorted(home.glob(f"*-{recipe.hash[:6]}*")) if home.is_dir() else ():
        if not (folder / "recipe.yaml").exists():
            continue
        state = RunState.read(folder)
        if not state.complete and state.part == part and _same(folder, recipe):
            return folder
    return None


def _same(folder: Path, recipe: Recipe) -> bool:
    try:
        return load_recipe(folder / "recipe.yaml").hash == recipe.hash
    except KdcoreError:
        return False


def _has(runs: Sequence[FinishedRun], seed: int) -> bool:
    return any(seed in each.facts.seeds for each in runs)


def _answers_for_baseline(found: FinishedRun) -> bool:
    """Whether a run trained its baseline, or was meant to and had none: no term that a student can learn from alone."""
    return "baseline" in found.facts.arms or load_recipe(found.recipe).baseline


@contextmanager
def _place(recipe: Recipe, part: str, say: Callable[[str], None]) -> Iterator[None]:
    folder = runs_folder() / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{recipe.variant[:16]}-{part}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"{recipe.name}: another process works on it; waiting")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
