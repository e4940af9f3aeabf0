"""Commands for plugin authors: new-plugin, check-plugin and schema."""

from kdcore import hookimpl


@hookimpl
def register_commands(cli):
    """Add the commands. They import slow modules in their bodies."""
    from kdcore_devtools.commands import check_plugin, new_plugin, schema

    cli.command("new-plugin")(new_plugin)
    cli.command("check-plugin")(check_plugin)
    cli.command()(schema)
