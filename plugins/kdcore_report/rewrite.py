"""Write the report of a run, at its end or again later."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kdcore import DataError, RunContext, Summary, load_recipe, read_run, reopen, summarise
from kdcore_report.curves import curves
from kdcore_report.examples import gather_examples
from kdcore_report.html_report import write_page


def write_run_report(run: RunContext, summary: Summary, path: Path) -> None:
    """Write the report of a run whose data are at hand, with examples of its first seed."""
    finished, seed = read_run(run.folder), summary.seeds[0]
    outcomes = {arm: found[seed] for arm, found in finished.outcomes.items()}
    write_page(path, summary, curves(run.folder, summary.seeds), gather_examples(run, seed, outcomes))


def rewrite_report(run_id: str | Path, to: Path | None = None, say: Callable[[str], None] = print) -> tuple[Summary, Path]:
    """Write the report of a finished run again, with examples if its recordings are still there.

    Args:
        run_id: Its id or folder.
        to: The HTML file; the run's ``report.html`` by default.
        say: Is given each line meant for the user.

    Raises:
        KdcoreError: If there is no such run, or it has not ended.
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
