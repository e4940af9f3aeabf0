"""Writing of the report of a run, at its end or later."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kdcore import DataError, RunContext, Summary, load_recipe, read_run, reopen, summarise
from kdcore_report.curves import curves
from kdcore_report.examples import gather_examples
from kdcore_report.html_report import write_page


def write_run_report(run: RunContext, summary: Summary, path: Path) -> None:
    """Write the report of a run whose data are available, with examples of its first seed."""
    finished, seed = read_run(run.folder), summary.seeds[0]
    outcomes = {arm: found[seed] for arm, found in finished.outcomes.items()}
    write_page(path, summary, curves(run.folder, summary.seeds), gather_examples(run, seed, outcomes))


def rewrite_report(run_id: str | Path, to: Path | None = None, say: Callable[[str], None] = print) -> tuple[Summary, Path]:
    """Rewrite the report of a finished run, with examples if its recordings are still available.

    Args:
        run_id: ID or folder of the run.
        to: Output HTML file. Default: ``report.html`` in the run's folder.
        say: Called with each line for the user.

    Raises:
        KdcoreError: If the run does not exist, or is not finished.
    """
    run = read_run(run_id)
    path = to or run.folder / "report.html"
    try:
        context = reopen(run)
    except DataError as error:
        say(f"no examples: {error}")
        summary = summarise(load_recipe(run.recipe, files=False), run)
        write_page(path, summary, curves(run.folder, summary.seeds))
    else:
        summary = summarise(context.recipe, run)
        write_run_report(context, summary, path)
    return summary, path
