"""Commands that show what a recipe will do, before it is run."""

from kdcore import hookimpl


@hookimpl
def register_commands(cli):
    """Add ``plan``."""
    from kdcore_inspect.commands import plan

    cli.command(rich_help_panel="Training")(plan)
