"""The HTML report of a run, and the command that writes it again."""

from kdcore import hookimpl


@hookimpl
def register_commands(cli):
    """Add ``report``."""
    from kdcore_report.commands import report

    cli.command()(report)


@hookimpl
def draw_recordings(title, drawings, path):
    """Write a page of pictures."""
    from kdcore_report.drawings import write_drawings

    return write_drawings(title, drawings, path)


@hookimpl
def write_report(run, summary):
    """Write ``report.html`` into the run's folder."""
    from kdcore_report.rewrite import write_run_report

    path = run.folder / "report.html"
    write_run_report(run, summary, path)
    return path
