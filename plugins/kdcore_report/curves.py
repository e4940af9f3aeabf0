"""Learning curves from the journal of a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

DISTILLED, BASELINE = "distilled", "baseline"

Curves = dict[str, dict[str, list[tuple[float, float]]]]
"""(epoch, value) pairs by panel title and curve name."""


def curves(run: Path, seeds: Sequence[int]) -> Curves:
    """Read learning curves of all terms and validation metrics of all learners from the run's journal.

    Returns:
        (epoch, value) pairs by panel title, such as ``student: soft-target`` or ``student: total loss``, and by curve name,
        ``seed 0, distilled`` or ``seed 0, baseline``. Without a baseline, the curve is named ``seed 0``.
    """
    found: Curves = {}
    journal = run / "tracking" / "journal.jsonl"
    runs = {f"seed-{seed}": f"seed {seed}" for seed in seeds}
    for line in journal.read_text(encoding="utf-8").splitlines() if journal.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:  # skip damaged lines
            continue
        if record.get("kind") == "metrics" and record.get("run") in runs:
            for name, value in record["values"].items():
                if title := _curve_title(name.removeprefix(f"{BASELINE}/")):
                    arm = BASELINE if name.startswith(f"{BASELINE}/") else DISTILLED
                    lines = found.setdefault(title, {})
                    lines.setdefault(f"{runs[record['run']]}, {arm}", []).append((record["step"], value))
    if any(label.endswith(f", {BASELINE}") for lines in found.values() for label in lines):
        return found
    return {
        title: {label.removesuffix(f", {DISTILLED}"): line for label, line in lines.items()} for title, lines in found.items()
    }


def _curve_title(metric: str) -> str:
    """Return ``student: total loss`` for ``train/student/total``; empty if it is not a curve by epoch."""
    kind, _, rest = metric.partition("/")
    learner, _, what = rest.rpartition("/")
    if kind == "validation":
        return f"{learner}: validation {what}"
    what = "total loss" if what == "total" else what
    return f"{learner}: {what}" if kind == "train" else ""
