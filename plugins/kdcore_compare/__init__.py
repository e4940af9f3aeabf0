"""Commands that compare runs: compare, seeds, compare-methods, ablate, cross-validate, sweep, reproduce."""

from kdcore import hookimpl


@hookimpl
def register_commands(cli):
    """Register the commands; each imports its implementation when it is called."""
    from kdcore_compare.commands import ablate, compare, compare_methods, cross_validate, reproduce, seeds, sweep

    for command in (compare, seeds, compare_methods, ablate, cross_validate, sweep, reproduce):
        cli.command(rich_help_panel="Experiments")(command)
