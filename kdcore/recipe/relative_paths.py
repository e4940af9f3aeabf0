"""Relative paths in a recipe count from the folder of the file that has them; on the command line, from the current one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kdcore.plugin.files import is_file, plugin_name
from kdcore.plugin.manager import PluginManager
from kdcore.recipe.components import known_components, participants
from kdcore.recipe.yaml import Node, Steps


def with_whole_paths(recipe: Node, plugins: PluginManager) -> Node:
    """`recipe` with absolute paths instead of relative ones.

    Paths are `weights` and `outputs` of participants, and options of components whose type is a path, such as a dataset's
    ``root``. A path that starts with ``~`` stays as it is.
    """
    for place in _places(recipe.plain(), plugins):
        recipe = _whole_at(recipe, place)
    return recipe


def _places(tree: Mapping[str, Any], plugins: PluginManager) -> Iterator[Steps]:
    for path, written in participants(tree):
        weights = written.get("weights")
        yield (*path, "weights", "file") if isinstance(weights, Mapping) else (*path, "weights")
        yield (*path, "outputs")
    yield from ((*each.path, key) for each in known_components(tree, plugins) for key in each.files)


def _whole_at(node: Node, place: Steps) -> Node:
    """`node` with the text at `place`, or each of the texts there, as a whole path; anything else stays as it is."""
    if not place:
        if node.is_list:
            return node.replaced([_whole_at(each, ()) for each in node.value])
        written = node.value
        if (
            not isinstance(written, str)
            or not written
            or written.startswith("~")
            or "\0" in written
            or Path(written).is_absolute()
        ):
            return node
        return node.replaced(os.path.abspath((node.file.parent if node.file else Path()) / written))
    step, rest = place[0], place[1:]
    if node.is_mapping and step in node.value:
        return node.replaced({**node.value, step: _whole_at(node.value[step], rest)})
    if node.is_list and isinstance(step, int) and step < len(node.value):
        return node.replaced([*node.value[:step], _whole_at(node.value[step], rest), *node.value[step + 1 :]])
    return node


def located(recipe: Node, asked_for: Iterable[Path] = ()) -> Node:
    """A recipe whose plugin files are said as whole paths, those beside it that say so, and with those asked for besides."""
    listed = recipe.get("plugins") or Node([])
    if not listed.is_list:
        return recipe
    entries = [each.replaced(str(_whole_path(each))) if is_file(each.value) else each for each in listed.value]
    named = {plugin_name(Path(each.value)) for each in entries if is_file(each.value)}
    entries += [Node(str(path)) for path in asked_for if plugin_name(path) not in named]
    return recipe.replaced({**recipe.value, "plugins": listed.replaced(entries)}) if entries else recipe


def _whole_path(entry: Node) -> Path:
    folder = entry.file.parent if entry.file else Path()
    return Path(os.path.abspath(folder / os.path.expanduser(entry.value)))
