"""Plugins of a recipe that are files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kdcore.plugin.files import fingerprint, is_file, plugin_name
from kdcore.recipe.yaml import Node


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


def with_fingerprints(plugins: Iterable[str]) -> list[Any]:
    """A recipe's plugins as its hash knows them: a file by what it holds, wherever it is."""
    return [[plugin_name(Path(each)), fingerprint(Path(each))] if is_file(each) else each for each in plugins]
