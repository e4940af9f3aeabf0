"""Commands that compare runs: compare, ablate, sweep, reproduce."""

from kdcore import hookimpl


@hookimpl
def register_commands(cli):
    """Add the commands; what they need is imported when one is used."""
    from kdcore_compare import commands

    for command in (commands.compare, commands.ablate, commands.sweep, commands.reproduce):
        cli.command()(command)
