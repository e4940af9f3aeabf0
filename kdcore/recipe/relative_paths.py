"""Resolution of relative paths: against the folder of the recipe file, or the current folder on the command line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kdcore.plugin.files import is_file, plugin_name
from kdcore.plugin.manager import PluginManager
from kdcore.recipe.components import known_components, participants
from kdcore.recipe.yaml import Node, Steps


def with_absolute_paths(recipe: Node, plugins: PluginManager) -> Node:
    """Return `recipe` with absolute paths instead of relative ones.

    Paths are `weights` and `outputs` of participants, and options of components whose type is a path, such as a dataset's
    ``root``. A path that starts with ``~`` is not changed.
    """
    for path in _paths(recipe.plain(), plugins):
        recipe = _absolute_at(recipe, path)
    return recipe


def _paths(tree: Mapping[str, Any], plugins: PluginManager) -> Iterator[Steps]:
    for path, written in participants(tree):
        weights = written.get("weights")
        yield (*path, "weights", "file") if isinstance(weights, Mapping) else (*path, "weights")
        yield (*path, "outputs")
    yield from ((*each.path, key) for each in known_components(tree, plugins) for key in each.files)


def _absolute_at(node: Node, path: Steps) -> Node:
    """Return `node` with the text at `path`, or each text in the list there, as an absolute path."""
    if not path:
        if node.is_list:
            return node.replaced([_absolute_at(each, ()) for each in node.value])
        text = node.value
        is_path = isinstance(text, str) and text and not text.startswith("~") and "\0" not in text
        return node.replaced(_absolute(node, text)) if is_path and not os.path.isabs(text) else node
    step, rest = path[0], path[1:]
    if node.is_mapping and step in node.value:
        return node.replaced({**node.value, step: _absolute_at(node.value[step], rest)})
    if node.is_list and isinstance(step, int) and step < len(node.value):
        return node.replaced([*node.value[:step], _absolute_at(node.value[step], rest), *node.value[step + 1 :]])
    return node


def with_plugin_files(recipe: Node, more: Iterable[Path]) -> Node:
    """Return `recipe` with absolute paths of its plugin files, and with the plugin files `more` that it does not list."""
    listed = recipe.get("plugins") or Node([])
    if not listed.is_list:
        return recipe
    entries = [
        each.replaced(_absolute(each, os.path.expanduser(each.value))) if is_file(each.value) else each for each in listed.value
    ]
    names = {plugin_name(Path(each.value)) for each in entries if is_file(each.value)}
    entries += [Node(str(path)) for path in more if plugin_name(path) not in names]
    return recipe.replaced({**recipe.value, "plugins": listed.replaced(entries)}) if entries else recipe


def _absolute(node: Node, path: str) -> str:
    return os.path.abspath((node.file.parent if node.file else Path()) / path)
