"""Commands about plugins and the components that they provide, and the commands that shipped plugins add."""

from __future__ import annotations

import json
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
"""Command → the plugin that adds it."""


def list_components(
    kind: Annotated[
        str, typer.Argument(help="losses, encoders, transforms …; all kinds by default.", autocompletion=complete_kind)
    ] = "",
) -> None:
    """List the components that the installed plugins provide."""
    from kdcore.plugin.manager import plugin_manager
    from kdcore.plugin.registry import KINDS

    registry = plugin_manager().registry
    wanted = [each for each, plural in KINDS.items() if not kind or kind.replace("-", "_") in (each, plural)]
    if not wanted:
        known = ", ".join(KINDS.values()).replace("_", "-")
        raise UsageError(f"no kind {kind!r}{or_meant(kind, KINDS.values())} (known: {known}; for recipes: kdcore recipes list)")
    for each in wanted:
        entries = list(registry.entries(each))
        width = max((len(entry.name) for entry in entries), default=0)
        print(f"{KINDS[each].replace('_', '-')}:")
        for entry in entries:
            clash = f"  (ambiguous: write {entry.qualified})" if len(registry.claims(each, entry.name)) > 1 else ""
            print(f"  {entry.name:<{width}}  {entry.plugin}{clash}")


def describe(
    name: Annotated[str, typer.Argument(help="Name of a component, or plugin/name.", autocompletion=complete_component)],
) -> None:
    """Show a component's description and options."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from kdcore.cli.tables import output, show_table
    from kdcore.plugin.docstring import joined_lines, without_sections
    from kdcore.plugin.manager import plugin_manager
    from kdcore.plugin.option_schema import describe as described

    registry = plugin_manager().registry
    plugin, slash, bare = name.rpartition("/")
    entries = [entry for entry in registry.entries() if entry.name == bare and (not slash or entry.plugin == plugin)]
    if not entries:
        raise UnknownComponentError(_unknown(name, {entry.name for entry in registry.entries()}))
    console = output()
    for entry in entries:
        found = described(entry)
        console.print(f"{found.kind.replace('_', ' ')} {found.name}", style="bold", highlight=False)
        console.print(f"from plugin {found.plugin} ({found.target})\n", style="dim", highlight=False)
        console.print(joined_lines(without_sections(found.doc, "Args")), markup=False, highlight=False)
        if found.options:
            options = Table("option", "type", "default", "meaning", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
            for option in found.options:
                default = "required" if option.required else option.default
                options.add_row(*map(Text, (option.name, option.type, default, option.description)))
            console.print()
            show_table(console, options)


def _unknown(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    from kdcore.plugin.registry import KINDS
    from kdcore.recipe.shipped import list_recipes

    for kind, plural in KINDS.items():
        if name.replace("-", "_") in (kind, plural):
            return f"{name!r} is a kind of component; list its components with: kdcore list {plural.replace('_', '-')}"
    if name in list_recipes():
        return f"{name!r} is a recipe, not a component; kdcore recipes list shows what each recipe is"
    near = get_close_matches(name, sorted(known), n=3)
    advice = f"did you mean {' or '.join(near)}?" if near else "see kdcore list, or kdcore recipes list for recipes"
    return f"no component {name!r}; {advice}"


def plugins(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the plugins with what they provide, or the reason why they are not used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they say what the table says
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
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from kdcore.cli.tables import output, show_table
    from kdcore.plugin.hookspecs import API_VERSION

    shown = Table("plugin", "package", "api", "provides", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for row in rows:
        what = "; ".join(f"{kind.replace('_', ' ')}: {', '.join(names)}" for kind, names in row["provides"].items())
        shown.add_row(
            Text(row["name"]),
            Text(f"{row['package'] or row['module']} {row['version']}"),
            str(row["api"]),
            Text(f"not used: {row['failure']}", "red") if row["failure"] else Text(what),
        )
    print(f"Plugins (kdcore has plugin API {API_VERSION})")
    show_table(output(), shown)


def command_names(app: Any) -> set[str]:
    """Commands of a typer app, those of its groups as ``group command``."""
    names = {each.name or each.callback.__name__.replace("_", "-") for each in app.registered_commands}
    for group in app.registered_groups:
        names |= {group.name, *(f"{group.name} {each}" for each in command_names(group.typer_instance))}
    return names


def refuse_missing(words: Sequence[str], app: Any, plugins: PluginManager) -> None:
    """Refuse a command of a plugin that is not in use.

    Raises:
        UsageError: If it is one; the message names the plugin, and why it is not in use.
    """
    wanted = next((each for each in (" ".join(words[:2]), *words[:1]) if each in SHIPPED), "")
    if not wanted or wanted in command_names(app):
        return
    plugin = plugins.plugins.get(SHIPPED[wanted])
    why = plugin.failure if plugin and plugin.failure else "" if plugin else "it is not installed; reinstall kdcore"
    raise UsageError(
        f"'kdcore {wanted}' is a command of the plugin {SHIPPED[wanted]!r}, which is not in use" + (f": {why}" if why else "")
    )
