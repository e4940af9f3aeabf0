"""Commands that compare runs: compare, ablate, sweep, report, reproduce."""

from kdcore import hookimpl


@hookimpl
def register_commands(cli):
    """Register the commands; each imports its implementation when it is called."""
    from kdcore_compare import commands

    for command in (commands.compare, commands.ablate, commands.sweep, commands.report, commands.reproduce):
        cli.command()(command)
