"""Checks a recipe against the plugins: are there such components, and do they take these options?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdcore.errors import PluginError, Problem, UnknownComponentError
from kdcore.plugin.constructors import TERM_KEYS
from kdcore.plugin.files import is_file
from kdcore.plugin.manager import PluginManager
from kdcore.plugin.option_schema import options_model, validated
from kdcore.plugin.registry import Entry
from kdcore.recipe.components import components, split
from kdcore.recipe.problems import Places, found_by_schema
from kdcore.recipe.yaml import Steps
from kdcore.suggestions import did_you_mean, nearest


@dataclass
class Checked:
    """Components of a recipe by path.

    Args:
        usable: Those that take their options: entry and options as written.
        known: All that exist, usable or not.
        problems: Everything that is wrong with the others.
    """

    usable: dict[Steps, tuple[Entry, dict[str, Any]]] = field(default_factory=dict)
    known: dict[Steps, Entry] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def check_components(tree: Mapping[str, Any], places: Places, plugins: PluginManager) -> Checked:
    """Look up every component of a recipe's plain values, and validate its options."""
    checked = Checked(problems=_missing_plugins(tree, places, plugins))
    for path, kind, written in components(tree):
        if not (component := split(kind, written)):
            continue
        name, options = component
        try:
            entry = plugins.registry.get(kind, name)
            model = options_model(entry)
        except UnknownComponentError:
            checked.problems.append(_unknown(path, kind, name, places, plugins))
            continue
        except PluginError as error:
            checked.problems.append(places.problem(path, str(error)))
            continue
        checked.known[path] = entry
        try:
            validated(entry, options)
            checked.usable[path] = entry, options
        except ValidationError as error:
            also = TERM_KEYS if kind == "loss" else ()
            of = f"{kind.replace('_', ' ')} {name!r}"
            checked.problems += found_by_schema(error, options, places, model, path, of, also)
    return checked


def _missing_plugins(tree: Mapping[str, Any], places: Places, plugins: PluginManager) -> list[Problem]:
    names = tree.get("plugins")
    problems = []
    for index, name in enumerate(names if isinstance(names, list) else ()):
        message = hint = ""
        if is_file(name):
            try:
                plugins.add_file(Path(name))
            except PluginError as error:
                message = str(error)
        elif isinstance(name, str) and name not in plugins.plugins:
            message, hint = f"there is no plugin {name!r}", did_you_mean(name, sorted(plugins.plugins), "installed")
        elif isinstance(name, str) and (failure := plugins.plugins[name].failure):
            message = f"the plugin {name!r} is not in use: {failure}"
        if message:
            problems.append(places.problem(("plugins", index), message, hint))
    return problems


def _unknown(path: Steps, kind: str, name: str, places: Places, plugins: PluginManager) -> Problem:
    known = {entry.name: entry.plugin for entry in plugins.registry.entries(kind)}
    others = [entry.kind for entry in plugins.registry.entries() if entry.name == name]
    near = nearest(name.rpartition("/")[2], known)
    hint = f"did you mean {near!r}, from the plugin {known[near]!r}?" if near else did_you_mean(name, sorted(known))
    label = kind.replace("_", " ")
    message = f"there is no {label} {name!r}" + (f", but a {others[0].replace('_', ' ')} of that name" if others else "")
    # A file that a recipe lists is reported at that line, and the process may have read other recipes before.
    broken = [plugin for plugin in plugins.broken if not plugin.is_file or Path(plugin.target) in plugins.files]
    if len(broken) == 1:
        message += f"; the plugin {broken[0].name!r} is not in use and may have it: {broken[0].failure}"
    elif broken:
        names = ", ".join(repr(plugin.name) for plugin in broken)
        message += f"; the plugins {names} are not in use, and one may have it (kdcore plugins says why)"
    return places.problem((*path, "name"), message, hint)
