"""Commands that compare runs: compare, ablate, cross-validate, sweep, reproduce."""

from kdcore import hookimpl


@hookimpl
def register_commands(cli):
    """Register the commands; each imports its implementation when it is called."""
    from kdcore_compare import commands

    for command in (
        commands.compare,
        commands.ablate,
        commands.cross_validate,
        commands.sweep,
        commands.reproduce,
    ):
        cli.command()(command)
