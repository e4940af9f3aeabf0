"""Commands that show what a recipe will do and what its data contain, and searches for copies of test recordings."""

from kdcore import hookimpl


@hookimpl
def register_commands(cli):
    """Add ``plan`` and ``data check``."""
    from kdcore_inspect.commands import check_data, plan

    cli.command(rich_help_panel="Training")(plan)
    group = next(each.typer_instance for each in cli.registered_groups if each.name == "data")
    group.command("check")(check_data)


@hookimpl
def leakage_checks():
    """Return the search for near copies, and the one for resampled and filtered copies."""
    from kdcore_inspect.near_copies import NearCopies
    from kdcore_inspect.outlines import ResampledCopies

    return [NearCopies(), ResampledCopies()]
