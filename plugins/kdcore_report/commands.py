"""The command ``report``, which imports slow modules in its body."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run_id: Annotated[str, typer.Argument(help="ID of a finished run, or the run's folder.")],
    output: Annotated[Path | None, typer.Option(help="Output HTML file. Default: report.html in the run's folder.")] = None,
) -> None:
    """Rewrite the report of a finished run, and print its path."""
    from kdcore_report.rewrite import rewrite_report

    summary, path = rewrite_report(run_id, output)
    print(summary.answer)
    print(path)
