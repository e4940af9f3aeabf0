"""Commands for plugin authors: new-plugin, check-plugin and schema."""

from kdcore import hookimpl


@hookimpl
def register_commands(cli):
    """Add the commands. They import slow modules in their bodies."""
    from kdcore_devtools.commands import check_plugin, new_plugin, schema

    for command in (new_plugin, check_plugin, schema):
        cli.command(rich_help_panel="Components and plugins")(command)
