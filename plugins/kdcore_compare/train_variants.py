"""Training of variants of a recipe, such as the folds of a cross-validation, one by one or in parallel."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from kdcore import (
    FinishedRun,
    KdcoreError,
    Recipe,
    RunListener,
    TrainingError,
    UsageError,
    dry_run,
    load_recipe,
    one_line,
    provenance_of,
)
from kdcore_compare.ensure_runs import Split, ensure_runs, interrupted_run, missing_seeds
from kdcore_compare.parallel import Parallel
from kdcore_compare.tables import Format, Table, render, stderr_console

Clock = Callable[[str, RunListener], RunListener]
"""Function from (label of a variant, listener) to a listener that measures the training and forwards events."""


def named_overrides(recipe: Recipe, label: str, changes: Sequence[str], tags: Mapping[str, str]) -> tuple[str, ...]:
    """`changes` plus overrides that give the variant its own name, the recipe's experiment, and MLflow tags."""
    slug = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
    every = json.dumps({**recipe.tracking.tags, **tags})
    experiment = json.dumps(recipe.tracking.experiment)
    return (*changes, f"name={recipe.name}-{slug}", f"tracking.experiment={experiment}", f"tracking.tags={every}")


def group_name(recipe: Recipe) -> str:
    """Return the common name of all variants of a recipe, for files and MLflow tags."""
    return f"{recipe.name}-{recipe.variant[:6]}"


def train_variants(
    source: str,
    overrides: Sequence[str],
    variants: Mapping[str, Sequence[str]],
    parallel: Parallel,
    command: Sequence[str],
    logs: Path,
    split: Split = "test",
    clock: Clock | None = None,
    failures: dict[str, str] | None = None,
) -> dict[str, list[FinishedRun]]:
    """Train the missing seeds of all variants.

    Args:
        source: Path or name of the recipe.
        overrides: ``key=value`` each, for every variant.
        variants: Label → overrides of the variant.
        parallel: Number of variants to train at a time, and where.
        command: Arguments of ``kdcore`` that train the variant whose label follows.
        logs: Folder for the output of parallel processes.
        split: Split that variants are evaluated on.
        clock: Measures the training of each variant.
        failures: Takes label → reason of each variant whose training fails; without it, a failure ends the command.

    Returns:
        Label → finished runs, of those that did not fail.

    Raises:
        KdcoreError: If the training of a variant fails, unless `failures` is given.
    """
    failed: dict[str, str] = {}
    if parallel.active:
        parallel.check()
        recipes = {label: load_recipe(source, [*overrides, *words]) for label, words in variants.items()}
        missing = {label: seeds for label, recipe in recipes.items() if (seeds := missing_seeds(recipe, split))}
        commands = _commands(missing, recipes, parallel.at_once, command, split)
        if len(commands) > 1:
            dry_run(source, [*overrides, *variants[next(iter(missing))]], split=split)  # prepare the data once for all variants
        ended = parallel.run({job: words for job, (_, words) in commands.items()}, logs, say)
        failed = {commands[job][0]: f"training failed; see {logs}" for job, status in ended.items() if status}
        if failed and failures is None:
            raise KdcoreError(f"training failed: {', '.join(failed)}; run the same command to try again")
    runs = {}
    for label, words in variants.items():
        if label in failed:
            continue
        try:
            runs[label] = train_variant(source, [*overrides, *words], label, split, clock)
        except TrainingError as error:
            if failures is None:
                raise
            failed[label] = one_line(error)
    if failures is not None:
        failures |= failed
    return runs


def _commands(
    missing: Mapping[str, Sequence[int]], recipes: Mapping[str, Recipe], at_once: int, command: Sequence[str], split: Split
) -> dict[str, tuple[str, list[str]]]:
    """Job → variant and arguments of ``kdcore``.

    A job trains a variant, or a single seed of it if there are fewer variants than can be trained at a time. An interrupted run
    of several seeds is resumed as a whole.
    """
    commands = {}
    for label, seeds in missing.items():
        words = [*command, label]
        if len(missing) >= at_once or len(seeds) == 1 or _is_interrupted(recipes[label], seeds, split):
            commands[label] = label, words
        else:
            commands |= {f"{label}, seed {seed}": (label, [*words, f"seeds=[{seed}]"]) for seed in seeds}
    return commands


def _is_interrupted(recipe: Recipe, seeds: Sequence[int], split: Split) -> bool:
    left = load_recipe({**recipe.filled(), "seeds": list(seeds)})
    return interrupted_run(left, split, provenance_of(left), lambda line: None) is not None


def train_only(
    source: str,
    overrides: Sequence[str],
    variants: Mapping[str, Sequence[str]],
    only: str,
    split: Split = "test",
    clock: Clock | None = None,
) -> None:
    """Train the missing seeds of a single variant.

    Raises:
        UsageError: If there is no variant of that label.
    """
    if only not in variants:
        raise UsageError(f"no variant {only!r} (available: {', '.join(variants)})")
    train_variant(source, [*overrides, *variants[only]], only, split, clock)


def train_variant(
    source: str, overrides: Sequence[str], label: str, split: Split = "test", clock: Clock | None = None
) -> list[FinishedRun]:
    """Train the missing seeds of a variant, with progress on stderr."""
    from kdcore import ConsoleListener

    console = stderr_console()
    missing = missing_seeds(load_recipe(source, overrides), split)
    what = f"training seeds {', '.join(map(str, missing))}" if missing else "already trained"
    console.print(f"{label}: {what}", highlight=False, markup=False)
    with ConsoleListener(console) as listener:
        return ensure_runs(source, overrides, split, clock(label, listener) if clock else listener, say)


def save_tables(folder: Path, name: str, tables: Sequence[Table], records: Sequence[Mapping[str, object]]) -> None:
    """Write tables as Markdown and records as CSV, and print the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    formats: tuple[tuple[str, Format], ...] = ((".md", "markdown"), (".csv", "csv"))
    for suffix, form in formats:
        path = folder / f"{name}{suffix}"
        path.write_text(render(tables, records, form), encoding="utf-8")
        say(str(path))


def say(text: str) -> None:
    """Print a line to stderr."""
    print(text, file=sys.stderr)
