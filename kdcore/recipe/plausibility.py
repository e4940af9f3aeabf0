"""Values that no recipe can mean, whatever component reads them: numbers beyond any computation, files that do not exist."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kdcore.errors import PluginError, Problem
from kdcore.plugin.manager import PluginManager
from kdcore.plugin.option_schema import options_model
from kdcore.recipe.components import components, participants, split
from kdcore.recipe.problems import Places
from kdcore.recipe.yaml import Node, Steps

LARGEST_INTEGER = 2**63 - 1
"""Integers beyond it fit into no tensor."""

NAMED_FILES = ("weights", "outputs")
"""Options of a participant that name a file to read."""


def impossible_numbers(recipe: Node, places: Places, plugins: PluginManager) -> list[Problem]:
    """Problems of numbers that are not finite or do not fit into 64 bits.

    An infinite value is accepted for an option of a component that is infinite by default.
    """
    tree = recipe.plain()
    found = []
    for path, value in _numbers(tree):
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            found.append(places.problem(path, f"the number {value} does not fit into 64 bits"))
        elif isinstance(value, float) and not math.isfinite(value) and not _infinite_by_default(tree, path, plugins):
            found.append(places.problem(path, f"must be a finite number, not {value}"))
    return found


def missing_files(recipe: Node, places: Places) -> list[Problem]:
    """Problems of files that participants are to be read from and that do not exist."""
    found = []
    for path, participant in participants(recipe.plain()):
        for key in NAMED_FILES:
            name = participant.get(key)
            if isinstance(name, str) and (wrong := _unreadable(name)):
                found.append(places.problem((*path, key), wrong))
    return found


def _numbers(tree: Any, path: Steps = ()) -> Iterator[tuple[Steps, int | float]]:
    if isinstance(tree, Mapping | list):
        for key, value in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
            yield from _numbers(value, (*path, key))
    elif isinstance(tree, int | float) and not isinstance(tree, bool):
        yield path, tree


def _infinite_by_default(tree: Mapping[str, Any], path: Steps, plugins: PluginManager) -> bool:
    """True if `path` is an option of a component whose default is the same infinite number."""
    for where, kind, written in components(tree):
        component = split(kind, written)
        if component and path[:-1] == where:
            try:
                field = options_model(plugins.registry.get(kind, component[0])).model_fields.get(str(path[-1]))
            except PluginError:
                return False
            return field is not None and isinstance(field.default, float) and field.default == written[path[-1]]
    return False


def _unreadable(name: str) -> str:
    """The reason why there is no file of this name; empty if there is one."""
    try:
        path = Path(name).expanduser()
        if path.is_file():
            return ""
        return f"{name!r} is a folder, not a file" if path.is_dir() else f"there is no file {name!r}"
    except (OSError, RuntimeError, ValueError) as error:
        return f"could not look for the file {name!r}: {getattr(error, 'strerror', None) or error}"
