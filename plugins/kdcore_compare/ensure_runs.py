"""Make sure that a recipe has been run: reuse finished runs, resume interrupted ones, train what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from kdcore import (
    FinishedRun,
    KdcoreError,
    Ledger,
    Recipe,
    RunListener,
    finished_runs,
    load_recipe,
    resume,
    run,
    runs_folder,
)

Part = Literal["test", "validation"]


def ensure_runs(
    source: str,
    overrides: Sequence[str],
    part: Part = "test",
    listener: RunListener | None = None,
    say: Callable[[str], None] = print,
) -> list[FinishedRun]:
    """Return finished runs that cover all seeds of a recipe, after training the seeds that are missing.

    Only one process at a time trains a configuration; others wait and reuse its runs. The lock of a killed process is released.

    Args:
        source: Path or name of the recipe.
        overrides: ``key=value`` each.
        part: Part of the split that runs are evaluated on.
        listener: Receives the progress of training.
        say: Called with each line for the user.
    """
    recipe = load_recipe(source, overrides)
    with _lock(recipe, part, say):
        if missing := missing_seeds(recipe, part):
            chosen = [*overrides, f"seeds={missing}"]
            interrupted = interrupted_run(load_recipe(source, chosen), part)
            if interrupted:
                resume(interrupted.name, listener)
            else:
                run(source, chosen, listener, ["kdcore", "run", source, *chosen], part)
        return reusable_runs(recipe, part)


def missing_seeds(recipe: Recipe, part: Part = "test") -> list[int]:
    """The recipe's seeds that no finished run has."""
    done = {seed for each in reusable_runs(recipe, part) for seed in each.facts.seeds}
    return [seed for seed in recipe.seeds if seed not in done]


def reusable_runs(recipe: Recipe, part: Part = "test") -> list[FinishedRun]:
    """Finished runs with at least one of the recipe's seeds, and with a baseline if the recipe asks for one."""
    return [
        each
        for each in finished_runs(recipe.variant, part)
        if set(each.facts.seeds) & set(recipe.seeds) and (not recipe.baseline or _baseline_settled(each))
    ]


def interrupted_run(recipe: Recipe, part: Part = "test") -> Path | None:
    """The folder of an interrupted run of exactly this recipe; None if there is none."""
    home = runs_folder()
    for folder in sorted(home.glob(f"*-{recipe.hash[:6]}*")) if home.is_dir() else ():
        if not (folder / "recipe.yaml").exists():
            continue
        ledger = Ledger.read(folder)
        if not ledger.complete and ledger.part == part and _is_of(folder, recipe):
            return folder
    return None


def _is_of(folder: Path, recipe: Recipe) -> bool:
    try:
        return load_recipe(folder / "recipe.yaml").hash == recipe.hash
    except KdcoreError:
        return False


def _baseline_settled(found: FinishedRun) -> bool:
    """True if a run trained its baseline, or asked for one and has no loss term that a student can learn from alone."""
    return "baseline" in found.facts.arms or load_recipe(found.recipe).baseline


@contextmanager
def _lock(recipe: Recipe, part: Part, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock on a configuration; wait for it if another process has it."""
    folder = runs_folder() / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{recipe.variant[:16]}-{part}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"{recipe.name}: waiting for another process that trains it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
