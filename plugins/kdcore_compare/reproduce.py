"""Rerunning of a finished run, and the results that differ."""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from kdcore import ConsoleListener, FinishedRun, KdcoreError, UnknownRunError, load_recipe, read_run, run
from kdcore_compare.selection import download_runs
from kdcore_compare.tables import stderr_console


def reproduce(run_id: str, overrides: Sequence[str] = (), uri: str | None = None) -> bool:
    """Run the recipe of a run again, including teachers, and print the differences. Return True if results are bit-identical.

    Args:
        run_id: ID or folder of a finished run, or its MLflow run ID.
        overrides: Overrides for this machine, e.g. ``data.dataset.root=…``.
        uri: MLflow tracking URI.

    Raises:
        KdcoreError: If the run does not exist, or its recipe cannot be run on this machine.
    """
    with tempfile.TemporaryDirectory() as folder:
        original = _find(run_id, Path(folder), uri)
        tags = {**load_recipe(original.recipe, overrides).tracking.tags, "reproduces": run_id}
        chosen = [*overrides, f"tracking.tags={json.dumps(tags)}"]
        command = ["kdcore", "reproduce", run_id, *overrides]
        split = "validation" if original.facts.split == "validation" else "test"
        with ConsoleListener(stderr_console()) as listener:
            result = run(original.recipe, chosen, callbacks=[listener], command=command, split=split, retrain=True)
        if result is None:
            return True  # the first process of a distributed run reports
        again = read_run(result.folder)
        print(f"original   {original.facts.name}: {shlex.join(original.facts.command)}")
        print(f"again      {again.folder}")
        conditions, numbers = list(changed_conditions(original, again)), list(changed_results(original, again))
        for line in (*conditions, *numbers):
            print(line)
        print(verdict(conditions, numbers))
    return not numbers


def _find(run_id: str, folder: Path, uri: str | None) -> FinishedRun:
    try:
        return read_run(run_id)
    except UnknownRunError as missing:
        try:
            return next(iter(download_runs(folder, uri, run_id=run_id)))
        except KdcoreError as error:
            raise KdcoreError(f"{missing}; {error}") from error


def verdict(conditions: Sequence[str], numbers: Sequence[str]) -> str:
    """Return a sentence that states whether the run was reproduced."""
    if not numbers:
        return "Reproduced: the predictions of every participant are bit-identical."
    why = "; the changed conditions are listed above them" if conditions else ", although no condition has changed"
    count = f"{len(numbers)} result{'s differ' if len(numbers) > 1 else ' differs'}"
    return f"Not reproduced: {count}{why}."


def changed_conditions(original: FinishedRun, again: FinishedRun) -> Iterator[str]:
    """Return lines on changes that may explain different results: recipe, data, split rule, versions, code, files, machine."""
    was, now = original.facts, again.facts
    for why in was.extends.get("differs", ()):
        yield f"the original extends {was.extends['run']} and is {why}"
    for name in ("recipe_hash", "fingerprint", "split_rule", "classes", "counts", "machine"):
        if getattr(was, name) != getattr(now, name):
            title = {"fingerprint": "data fingerprint", "recipe_hash": "recipe hash"}.get(name, name)
            yield f"{title}: {getattr(was, name)} then, {getattr(now, name)} now"
    for name in dict.fromkeys([*was.versions, *now.versions]):
        then, here = was.versions.get(name, "not used"), now.versions.get(name, "not used")
        if then != here:
            yield f"{name}: {then} then, {here} now"
    for what, before, after in (("code of", was.code, now.code), ("file at", was.files, now.files)):
        for name in dict.fromkeys([*before, *after]):
            if before.get(name) != after.get(name):
                yield f"the {what} {name} has changed"


def changed_results(original: FinishedRun, again: FinishedRun) -> Iterator[str]:
    """Return lines on results that differ, with the size of the difference."""
    for arm, seeds in original.outcomes.items():
        for seed, was in seeds.items():
            now = again.outcomes.get(arm, {}).get(seed)
            where = f"seed {seed}, {arm}"
            if now is None:
                yield f"{where}: missing now"
            elif list(was.keys) != list(now.keys) or not np.array_equal(
                was.labels, now.labels, equal_nan=was.labels.dtype.kind == "f"
            ):
                yield f"{where}: different samples: {len(was.keys)} then, {len(now.keys)} now"
            else:
                for name, before in was.probabilities.items():
                    if not np.array_equal(before, after := now.probabilities[name], equal_nan=True):
                        metric = was.target.metric(was.target.primary)
                        then, here = (found.evaluations()[name].metrics()[metric.name] for found in (was, now))
                        apart, what = np.abs(before - after), "values" if was.target.kind == "values" else "probabilities"
                        one = apart.max(1) > 0
                        if was.target.is_classes:
                            one = before.argmax(1) != after.argmax(1)
                        yield (
                            f"{where}, {name}: {metric.title} {then:.4f} then, {here:.4f} now; "
                            f"{int(one.sum())} of {len(before)} predictions differ, "
                            f"{what} by up to {float(apart.max()):.2g}"
                        )
