"""The command ``report``; what it needs is imported inside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run_id: Annotated[str, typer.Argument(help="Id of a finished run, or the run's folder.")],
    output: Annotated[Path | None, typer.Option(help="HTML file to write; by default report.html in the run's folder.")] = None,
) -> None:
    """Rewrite the report of a finished run, and print its path."""
    from kdcore_report.rewrite import rewrite_report

    summary, path = rewrite_report(run_id, output)
    print(summary.answer)
    print(path)
