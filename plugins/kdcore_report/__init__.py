"""HTML report of a run, and the command that rewrites it."""

from kdcore import hookimpl


@hookimpl
def register_commands(cli):
    """Add the command ``report``."""
    from kdcore_report.commands import report

    cli.command(rich_help_panel="Results")(report)


@hookimpl
def draw_recordings(title, drawings, path):
    """Write an HTML page with plots of recordings."""
    from kdcore_report.drawings import write_drawings

    return write_drawings(title, drawings, path)


@hookimpl
def write_report(run, summary):
    """Write ``report.html`` to the run's folder."""
    from kdcore_report.rewrite import write_run_report

    path = run.folder / "report.html"
    write_run_report(run, summary, path)
    return path
