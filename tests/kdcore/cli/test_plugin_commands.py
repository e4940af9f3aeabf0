"""Commands of plugins that are not in use."""

from __future__ import annotations

import warnings

import pytest
import typer

from kdcore.cli.plugins import SHIPPED, command_names, refuse_missing
from kdcore.errors import UsageError
from kdcore.plugin.manager import PluginManager, found_plugins


def app() -> typer.Typer:
    made = typer.Typer()
    made.add_typer(typer.Typer(), name="data")
    return made


def test_the_table_has_every_command_of_the_shipped_plugins():
    plugins, before, made = found_plugins(), command_names(app()), app()
    plugins.add_commands(made)
    assert command_names(made) - before == set(SHIPPED)
    for words in (name.split() for name in SHIPPED):
        refuse_missing([*words, "x"], made, plugins)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_command_without_its_plugin_names_it(name):
    with pytest.raises(UsageError, match=f"'kdcore {name}' is provided by the plugin '{SHIPPED[name]}', .* not installed"):
        refuse_missing([*name.split(), "quickstart"], app(), PluginManager([]))


def test_a_broken_plugin_is_named_with_its_failure():
    class Broken:
        def register_commands(self, cli):
            raise ValueError("no")

    from kdcore import hookimpl

    Broken.register_commands = hookimpl(Broken.register_commands)
    plugins, made = PluginManager([]), app()
    plugins.register("compare", Broken())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plugins.add_commands(made)
    with pytest.raises(UsageError, match=r"plugin 'compare', which is not in use: could not add its commands: ValueError: no"):
        refuse_missing(["compare", "a"], made, plugins)
    refuse_missing(["nonsense"], made, plugins)
    refuse_missing([], made, plugins)
