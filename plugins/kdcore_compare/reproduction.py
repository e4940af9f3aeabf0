"""The same run again, and what of it came out otherwise."""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from kdcore import ConsoleListener, FinishedRun, KdcoreError, UnknownRunError, load_recipe, read_run, run
from kdcore_compare.downloaded import downloaded


def reproduce(run_id: str, overrides: Sequence[str] = (), uri: str | None = None) -> bool:
    """Run a run's recipe again, teachers and all, print what differs, and return whether every answer is the same to the bit.

    Args:
        run_id: Id or folder of a finished run, or its id in MLflow.
        overrides: What is elsewhere here, e.g. ``data.dataset.root=…``.
        uri: Of MLflow.

    Raises:
        KdcoreError: If there is no such run, or it cannot be run here.
    """
    from rich.console import Console

    with tempfile.TemporaryDirectory() as folder:
        original = _find(run_id, Path(folder), uri)
        tags = {**load_recipe(original.recipe, overrides).tracking.tags, "reproduces": run_id}
        chosen = [*overrides, f"tracking.tags={json.dumps(tags)}"]
        command = ["kdcore", "reproduce", run_id, *overrides]
        part = "validation" if original.facts.part == "validation" else "test"
        with ConsoleListener(Console(stderr=True)) as listener:
            result = run(original.recipe, chosen, listener, command, part, retrain=True)
        if result is None:
            return True  # another process of this run tells
        again = read_run(result.folder)
        print(f"original   {original.facts.name}: {shlex.join(original.facts.command)}")
        print(f"again      {again.folder}")
        circumstances, numbers = list(other_circumstances(original, again)), list(other_numbers(original, again))
        for line in (*circumstances, *numbers):
            print(line)
        print(verdict(circumstances, numbers))
    return not numbers


def _find(run_id: str, folder: Path, uri: str | None) -> FinishedRun:
    try:
        return read_run(run_id)
    except UnknownRunError as missing:
        try:
            return next(iter(downloaded(folder, uri, run_id=run_id)))
        except KdcoreError as error:
            raise KdcoreError(f"{missing}; {error}") from error


def verdict(circumstances: Sequence[str], numbers: Sequence[str]) -> str:
    """What a person wants to know."""
    if not numbers:
        return "Reproduced: every answer of every participant is the same, to the bit."
    why = "; what else differs is listed above them" if circumstances else ", although nothing else does"
    return f"Not reproduced: {len(numbers)} results differ{why}."


def other_circumstances(original: FinishedRun, again: FinishedRun) -> Iterator[str]:
    """Lines on what may explain other numbers: recipe, data, split, versions, machine."""
    was, now = original.facts, again.facts
    for name in ("recipe_hash", "fingerprint", "split", "classes", "counts", "machine"):
        if getattr(was, name) != getattr(now, name):
            title = {"fingerprint": "data fingerprint", "recipe_hash": "recipe hash"}.get(name, name)
            yield f"{title}: {getattr(was, name)} then, {getattr(now, name)} now"
    for name in dict.fromkeys([*was.versions, *now.versions]):
        then, here = was.versions.get(name, "not used"), now.versions.get(name, "not used")
        if then != here:
            yield f"{name}: {then} then, {here} now"


def other_numbers(original: FinishedRun, again: FinishedRun) -> Iterator[str]:
    """Lines on what came out otherwise, with by how much."""
    for arm, seeds in original.outcomes.items():
        for seed, was in seeds.items():
            now = again.outcomes.get(arm, {}).get(seed)
            where = f"seed {seed}, {arm}"
            if now is None:
                yield f"{where}: missing now"
            elif list(was.keys) != list(now.keys) or not np.array_equal(was.labels, now.labels):
                yield f"{where}: other samples: {len(was.keys)} then, {len(now.keys)} now"
            else:
                for name, before in was.probabilities.items():
                    if not np.array_equal(before, after := now.probabilities[name]):
                        then, here = (found.evaluations()[name].accuracy for found in (was, now))
                        changed = int((before.argmax(1) != after.argmax(1)).sum())
                        yield (
                            f"{where}, {name}: accuracy {then:.4f} then, {here:.4f} now; {changed} of {len(before)} answers "
                            f"differ; probabilities by up to {float(np.abs(before - after).max()):.2g}"
                        )
