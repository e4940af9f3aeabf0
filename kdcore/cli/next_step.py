"""The suggestion that a finished run ends with."""

from __future__ import annotations

import shlex

from kdcore.runs.summary import Summary

MORE_SEEDS = "seeds=[0,1,2,3,4]"


def next_step(summary: Summary) -> str:
    """Suggest in one line what to do after this result.

    A single pair of trainings is worth repeating with more seeds, a student that gained is worth using, and one that did not
    is worth another method.
    """
    difference = summary.difference
    if difference is not None and len(summary.seeds) == 1:
        return f"repeat it with more seeds: {_with_more_seeds(summary)}"
    if difference is not None and not (difference.conclusive and difference.helped):
        return "try another method or another weight: kdcore recipes list"
    student = summary.row("distilled", "student")
    if student is None:
        return f"evaluate the saved students again: kdcore evaluate {shlex.quote(summary.folder.name)}"
    folder = summary.folder / "students" / f"seed-{summary.seeds[0]}" / student.participant
    return f"use the student on a recording: kdcore predict {shlex.quote(str(folder))} FILE"


def _with_more_seeds(summary: Summary) -> str:
    words = [word for word in shlex.split(summary.command) if not word.startswith("seeds=")]
    if words[:2] == ["kdcore", "resume"]:  # an extension has the seeds of the run that it extends
        words = ["kdcore", "run", str(summary.folder / "recipe.yaml")]
    if not words:
        return f"set {MORE_SEEDS} in the recipe"
    return shlex.join([*words, MORE_SEEDS])
