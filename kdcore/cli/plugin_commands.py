"""Commands of shipped plugins, by name, so that a missing one can be explained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kdcore.errors import UsageError

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


def command_names(app: Any) -> set[str]:
    """Commands of a typer app, those of its groups as ``group command``."""
    names = {each.name or each.callback.__name__.replace("_", "-") for each in app.registered_commands}
    for group in app.registered_groups:
        names |= {group.name, *(f"{group.name} {each}" for each in command_names(group.typer_instance))}
    return names


def refuse_missing(words: Sequence[str], app: Any, plugins: PluginManager) -> None:
    """Refuse a command of a plugin that is not in use.

    Args:
        words: The command line.
        app: The typer app, with the commands of all plugins that are in use.
        plugins: These plugins.

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
