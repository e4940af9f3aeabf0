"""Commands that list plugins and components, and the table of commands that shipped plugins add."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdcore.cli.arguments import complete_component, complete_kind
from kdcore.errors import UnknownComponentError, UsageError
from kdcore.suggestions import or_meant

if TYPE_CHECKING:
    from kdcore.plugin.manager import PluginManager

SHIPPED = {
    "data check": "inspect",
    "data new": "datasets",
    "compare": "compare",
    "compare-methods": "compare",
    "ablate": "compare",
    "cross-validate": "compare",
    "sweep": "compare",
    "seeds": "compare",
    "reproduce": "compare",
    "new-plugin": "devtools",
    "check-plugin": "devtools",
    "schema": "devtools",
    "export": "export",
    "plan": "inspect",
    "sync": "mlflow",
    "register": "mlflow",
    "report": "report",
}
"""Commands of shipped plugins: command → name of the plugin."""


def list_components(
    kind: Annotated[
        str,
        typer.Argument(
            help="Kind of component: losses, encoders, transforms … Default: all kinds.", autocompletion=complete_kind
        ),
    ] = "",
) -> None:
    """List the components provided by the installed plugins.

    Each line shows the name of a component, its plugin and a description.
    """
    from kdcore.plugin.manager import plugin_manager
    from kdcore.plugin.registry import KINDS
    from kdcore.plugin.source_docs import first_line

    registry = plugin_manager().registry
    kinds = [each for each, plural in KINDS.items() if not kind or kind.replace("-", "_") in (each, plural)]
    if not kinds:
        all_kinds = ", ".join(KINDS.values()).replace("_", "-")
        raise UsageError(
            f"unknown kind of component {kind!r}{or_meant(kind, KINDS.values())} "
            f"(known: {all_kinds}; for recipes, use kdcore recipes list)"
        )
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    for each in kinds:
        entries = list(registry.entries(each))
        width = max((len(entry.name) for entry in entries), default=0)
        plugin_width = max((len(entry.plugin) for entry in entries), default=0)
        print(f"{KINDS[each].replace('_', '-')}:")
        for entry in entries:
            note = f"(ambiguous: write {entry.qualified}) " if len(registry.claims(each, entry.name)) > 1 else ""
            line = f"  {entry.name:<{width}}  {entry.plugin:<{plugin_width}}  {note}{first_line(entry.target)}"
            print(line.rstrip() if len(line) <= room else f"{line[: room - 1]}…")


def describe(
    name: Annotated[str, typer.Argument(help="Component name, or plugin/name.", autocompletion=complete_component)],
) -> None:
    """Show the description and options of a component."""
    from rich.text import Text

    from kdcore.cli.tables import new_table, output_console, show_table
    from kdcore.plugin.docstring import joined_lines, plain, without_sections
    from kdcore.plugin.manager import plugin_manager
    from kdcore.plugin.option_schema import describe as described

    registry = plugin_manager().registry
    plugin, slash, short_name = name.rpartition("/")
    entries = [entry for entry in registry.entries() if entry.name == short_name and (not slash or entry.plugin == plugin)]
    if not entries:
        raise UnknownComponentError(_unknown(name, {entry.name for entry in registry.entries()}))
    console = output_console()
    for entry in entries:
        description = described(entry)
        console.print(f"{entry.kind.replace('_', ' ')} {entry.name}", style="bold", highlight=False)
        console.print(f"from plugin {entry.plugin} ({entry.target})\n", style="dim", highlight=False)
        text = plain(joined_lines(without_sections(description.doc, "Args", "Raises", "Returns", "Attributes")))
        console.print(text, markup=False, highlight=False)
        if description.options:
            options = new_table("option", "type", "default", "meaning")
            for option in description.options:
                default = "required" if option.required else option.default
                options.add_row(*map(Text, (option.name, option.type, default, plain(option.description))))
            console.print()
            show_table(console, options)


def _unknown(name: str, names: Iterable[str]) -> str:
    from difflib import get_close_matches

    from kdcore.plugin.registry import KINDS
    from kdcore.recipe.shipped import list_recipes

    for kind, plural in KINDS.items():
        if name.replace("-", "_") in (kind, plural):
            return f"{name!r} is a kind of component; list its components with: kdcore list {plural.replace('_', '-')}"
    if name in list_recipes():
        return f"{name!r} is a recipe, not a component; kdcore recipes list describes each recipe"
    near = get_close_matches(name, sorted(names), n=3)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "see kdcore list, or kdcore recipes list for recipes"
    return f"no component {name!r}; {hint}"


def plugins(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the plugins and what they provide.

    If a plugin is not in use, the reason is shown.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the table contains the same information
        rows = _plugin_rows()
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        _show_plugins(rows)


def _plugin_rows() -> list[dict[str, Any]]:
    from kdcore.plugin.manager import found_plugins

    manager = found_plugins()
    provided: dict[str, dict[str, list[str]]] = {name: {} for name in manager.plugins}
    for entry in manager.registry.entries():
        provided[entry.plugin].setdefault(entry.kind, []).append(entry.name)
    return [
        {
            "name": each.name,
            "package": each.distribution,
            "version": each.version,
            "api": each.api,
            "module": each.target,
            "provides": provided[name],
            "failure": each.failure,
        }
        for name, each in sorted(manager.plugins.items())
    ]


def _show_plugins(rows: list[dict[str, Any]]) -> None:
    from rich.text import Text

    from kdcore.cli.tables import new_table, output_console, show_table
    from kdcore.plugin.hookspecs import API_VERSION

    table = new_table("plugin", "package", "api", "provides")
    for row in rows:
        provided = "; ".join(f"{kind.replace('_', ' ')}: {', '.join(names)}" for kind, names in row["provides"].items())
        table.add_row(
            Text(row["name"]),
            Text(f"{row['package'] or row['module']} {row['version']}"),
            str(row["api"]),
            Text(f"not in use: {row['failure']}", "red") if row["failure"] else Text(provided),
        )
    print(f"Plugins (plugin API version {API_VERSION})")
    show_table(output_console(), table)


def command_names(app: Any) -> set[str]:
    """Return the names of a typer app's commands; commands in groups as ``group command``."""
    names = {each.name or each.callback.__name__.replace("_", "-") for each in app.registered_commands}
    for group in app.registered_groups:
        names |= {group.name, *(f"{group.name} {each}" for each in command_names(group.typer_instance))}
    return names


def refuse_missing(words: Sequence[str], app: Any, plugins: PluginManager) -> None:
    """Check that the command does not belong to a shipped plugin that is not in use.

    Raises:
        UsageError: If it does. The message names the plugin and the reason.
    """
    command = next((each for each in (" ".join(words[:2]), *words[:1]) if each in SHIPPED), "")
    if not command or command in command_names(app):
        return
    plugin = plugins.plugins.get(SHIPPED[command])
    reason = plugin.failure if plugin and plugin.failure else "" if plugin else "it is not installed; reinstall kdcore"
    raise UsageError(
        f"'kdcore {command}' is provided by the plugin {SHIPPED[command]!r}, which is not in use"
        + (f": {reason}" if reason else "")
    )
