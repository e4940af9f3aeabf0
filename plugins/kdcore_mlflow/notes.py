"""The note of a run, which MLflow shows at the top of the run's page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kdcore import Metric, RecipeChanges, Summary

MOST_CHANGES = 30
NO_VALUE = "–"


def run_note(summary: Summary, changes: RecipeChanges, model: str = "") -> str:
    """Return the note of a parent run as Markdown: results, gain, and changes of the recipe to its base.

    Args:
        summary: Results of the run.
        changes: Changes of its recipe to the base recipe.
        model: Sentence about the model that is linked to the run.
    """
    answer = f"**{summary.answer}**" if summary.answer else ""
    title = f"{summary.split.capitalize()} {_in(summary.metric)}:"
    results = "\n".join(_table(summary.headings(), [row.cells() for row in summary.rows]))
    parts = [summary.description, answer, title, results, summary.setting, model, *_changes(changes)]
    if summary.command:
        parts.append(f"Reproduce: `{summary.command}`")
    return "\n\n".join(part for part in parts if part)


def seed_note(summary: Summary, seed: int) -> str:
    """Return the note of a seed as Markdown: its results."""
    index = list(summary.seeds).index(seed)
    rows, shown = [], []
    for row in summary.rows:
        found = row.evaluations[index]
        shown = list({metric.name: metric for metric in (found.primary, found.secondary)}.values())
        rows.append([row.participant, row.role, *(metric.text(found.metrics()[metric.name]) for metric in shown)])
    units = {metric.unit for metric in shown}
    headings = [metric.title if units == {"%"} else metric.heading for metric in shown]
    unit = ", in %" if units == {"%"} else ""
    return f"Seed {seed} of {summary.name}{unit}:\n\n" + "\n".join(_table(["participant", "role", *headings], rows))


def _in(metric: Metric) -> str:
    return f"{metric.title} in {metric.unit}" if metric.unit else metric.title


def _changes(changes: RecipeChanges) -> Iterator[str]:
    if not changes.base:
        return
    if not changes.values:
        yield f"Recipe: `{changes.base}`, unchanged."
        return
    yield f"Changes to the recipe `{changes.base}`:"
    rows = [[f"`{key}`", _value(before), _value(after)] for key, (before, after) in changes.values.items()]
    yield "\n".join(_table(["option", changes.base, "this run"], rows[:MOST_CHANGES]))
    if len(rows) > MOST_CHANGES:
        yield f"{len(rows) - MOST_CHANGES} more changes are in the run's parameters."


def _value(value: object) -> str:
    text = NO_VALUE if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield _line(headings)
    yield _line(["---"] * len(headings))
    yield from map(_line, rows)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
