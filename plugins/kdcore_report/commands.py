"""The command ``report``, which imports slow modules in its body."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def report(
    run_id: Annotated[
        str,
        typer.Argument(
            help="Run ID or an unambiguous prefix or suffix of it, path to a run's folder, or a recipe's name for its latest "
            "run."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Output HTML file. Default: report.html in the run's folder.")
    ] = None,
) -> None:
    """Rewrite the report of a finished run, and print its path."""
    from kdcore_report.rewrite import rewrite_report

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    summary, path = rewrite_report(run_id, output, say)
    if summary.answer:
        say(summary.answer)
    print(path)
