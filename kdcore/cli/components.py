"""Plugins and components as a person reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from difflib import get_close_matches

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kdcore.errors import UnknownComponentError
from kdcore.plugin.docstring import without_sections
from kdcore.plugin.hookspecs import API_VERSION
from kdcore.plugin.manager import found_plugins, plugin_manager
from kdcore.plugin.option_schema import describe
from kdcore.plugin.registry import KINDS
from kdcore.recipe.shipped import list_recipes


def show_component(name: str) -> None:
    """A component of any kind, by name.

    Raises:
        UnknownComponentError: If no kind knows the name.
    """
    registry = plugin_manager().registry
    plugin, slash, bare = name.rpartition("/")
    entries = [entry for entry in registry.entries() if entry.name == bare and (not slash or entry.plugin == plugin)]
    if not entries:
        raise UnknownComponentError(_unknown(name, {entry.name for entry in registry.entries()}))
    console = Console()
    for entry in entries:
        found = describe(entry)
        console.print(f"{found.kind} {found.name}", style="bold", highlight=False)
        console.print(f"from plugin {found.plugin} ({found.target})\n", style="dim", highlight=False)
        console.print(without_sections(found.doc, "Args"), markup=False, highlight=False)
        if found.options:
            options = Table("option", "type", "default", "meaning")
            for option in found.options:
                options.add_row(
                    Text(option.name),
                    Text(option.type),
                    Text("required" if option.required else option.default),
                    Text(option.description),
                )
            console.print(options)


def _unknown(name: str, known: Iterable[str]) -> str:
    for kind, plural in KINDS.items():
        if name.replace("-", "_") in (kind, plural):
            return f"{name!r} is a kind of component; kdcore list {plural.replace('_', '-')} names those of it"
    if name in list_recipes():
        return f"{name!r} is a recipe, no component; kdcore recipes list says what each recipe is"
    near = get_close_matches(name, sorted(known), n=3)
    advice = f"did you mean {' or '.join(near)}?" if near else "see kdcore list, or kdcore recipes list for recipes"
    return f"no component {name!r}; {advice}"


def show_plugins(as_json: bool) -> None:
    """Every plugin found, and what it provides or why it cannot."""
    manager = found_plugins()
    provided: dict[str, dict[str, list[str]]] = {name: {} for name in manager.plugins}
    for entry in manager.registry.entries():
        provided[entry.plugin].setdefault(entry.kind, []).append(entry.name)
    rows = [
        {
            "name": p.name,
            "package": p.distribution,
            "version": p.version,
            "api": p.api,
            "module": p.target,
            "provides": provided[name],
            "failure": p.failure,
        }
        for name, p in sorted(manager.plugins.items())
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    shown = Table("plugin", "package", "api", "provides", title=f"Plugins (API {API_VERSION})")
    for row in rows:
        what = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in row["provides"].items())
        shown.add_row(
            Text(row["name"]),
            Text(f"{row['package'] or row['module']} {row['version']}"),
            str(row["api"]),
            Text(f"not used: {row['failure']}", "red") if row["failure"] else Text(what),
        )
    Console().print(shown)
