"""Arguments shared by several commands, and their shell completion."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer


def complete_recipe(incomplete: str) -> Iterator[str]:
    """Complete the name of a shipped recipe or the path of a YAML file."""
    from kdcore.recipe.shipped import list_recipes

    yield from (name for name in list_recipes() if name.startswith(incomplete))
    folder = Path(incomplete).parent
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        if str(path).startswith(incomplete) and (path.is_dir() or path.suffix in (".yaml", ".yml")):
            yield f"{path}/" if path.is_dir() else str(path)


def complete_model(incomplete: str) -> list[str]:
    """Complete the name of a shipped model."""
    from kdcore.deploy.shipped_models import list_models

    return [name for name in list_models() if name.startswith(incomplete)]


def complete_component(incomplete: str) -> list[str]:
    """Complete the name of a component, or ``plugin/name`` once a slash is typed."""
    from kdcore.plugin.manager import plugin_manager

    entries = list(plugin_manager().registry.entries())
    names = {entry.qualified if "/" in incomplete else entry.name for entry in entries}
    return sorted(name for name in names if name.startswith(incomplete))


def complete_kind(incomplete: str) -> list[str]:
    """Complete a kind of component."""
    from kdcore.plugin.registry import KINDS

    return [name for kind in KINDS.values() if (name := kind.replace("_", "-")).startswith(incomplete)]


def complete_run(incomplete: str) -> list[str]:
    """Complete the ID of a run, most recent first."""
    from kdcore.runs.paths import known_runs

    return [name for name in reversed(known_runs()) if name.startswith(incomplete)]


def plugin_options() -> list[str]:
    """Return the ``--plugin`` options for the plugin files in use."""
    from kdcore.plugin.files import files_asked_for

    return [word for path in files_asked_for() for word in ("--plugin", str(path))]


RecipeArgument = Annotated[
    str, typer.Argument(help="Path to a recipe, or the name of a shipped recipe.", autocompletion=complete_recipe)
]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Recipe overrides as key=value, e.g. losses.soft-target.weight=0.5")
]
RunArgument = Annotated[
    str,
    typer.Argument(
        help="Run ID or an unambiguous prefix or suffix of it, path to a run's folder, or a recipe's name for its latest run.",
        autocompletion=complete_run,
    ),
]
RunArguments = Annotated[
    list[str],
    typer.Argument(
        help="Run IDs or unambiguous prefixes or suffixes of them, paths to runs' folders, or recipes' names.",
        autocompletion=complete_run,
    ),
]
