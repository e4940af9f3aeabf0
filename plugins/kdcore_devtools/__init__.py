"""Commands for plugin authors: new-plugin, check-plugin and schema."""

from kdcore import hookimpl


@hookimpl
def register_commands(cli):
    """Add the commands; what they need is imported when one is used."""
    from kdcore_devtools.commands import check_plugin, new_plugin, schema

    cli.command("new-plugin")(new_plugin)
    cli.command("check-plugin")(check_plugin)
    cli.command()(schema)
