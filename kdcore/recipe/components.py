"""Positions, kinds and spelling of the components in a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic.fields import FieldInfo

from kdcore.errors import PluginError
from kdcore.plugin.constructors import TERM_KEYS
from kdcore.plugin.manager import PluginManager
from kdcore.plugin.option_schema import is_path, options_model
from kdcore.recipe.yaml import Steps

JOINED = "joined"
"""Key of the transforms that follow the joining of several modalities."""


def components(tree: Mapping[str, Any]) -> Iterator[tuple[Steps, str, Any]]:
    """Iterate over (path, kind, as written) of every component in a recipe's plain values; malformed parts are skipped."""
    data = as_mapping(tree.get("data"))
    yield from _one(("data",), data, dataset="dataset", protocol="protocol")
    for path, participant in participants(tree):
        yield from _transforms((*path, "transforms"), participant.get("transforms"))
        yield from _one(path, participant, encoder="encoder")
        yield from _each((*path, "losses"), participant.get("losses"), "loss")
    for key in ("losses", "teacher_losses"):
        yield from _each((key,), tree.get(key), "loss")
    yield from _one((), tree, fusion="fusion", class_embeddings="class_embedding", schedule="schedule")


class Known(NamedTuple):
    """A component that a plugin provides: its place, its options as written, and all options that it takes."""

    path: Steps
    kind: str
    name: str
    options: dict[str, Any]
    fields: Mapping[str, FieldInfo]

    @property
    def files(self) -> list[str]:
        """The options that are written and whose type is a path."""
        return [key for key in self.options if key in self.fields and is_path(self.fields[key].annotation)]


def known_components(tree: Mapping[str, Any], plugins: PluginManager) -> Iterator[Known]:
    """Iterate over the components in a recipe's plain values, without those that are unknown or broken."""
    for path, kind, written in components(tree):
        if component := split(kind, written):
            name, options = component
            try:
                fields = options_model(plugins.registry.get(kind, name)).model_fields
            except PluginError:
                continue  # reported where components are checked
            yield Known(path, kind, name, options, fields)


def participants(tree: Mapping[str, Any]) -> Iterator[tuple[Steps, Mapping[str, Any]]]:
    """Iterate over (path, as written) of every teacher and student."""
    for group in ("teachers", "students"):
        for name, participant in as_mapping(tree.get(group)).items():
            yield (group, name), as_mapping(participant)
    if "student" in tree:
        yield ("student",), as_mapping(tree["student"])


def split(kind: str, written: Any) -> tuple[str, dict[str, Any]] | None:
    """Return name and options of a component written ``x`` or ``{name: x, option: 1}``; None if it is neither."""
    if isinstance(written, str):
        return written, {}
    name = written.get("name") if isinstance(written, Mapping) else None
    if not isinstance(name, str):
        return None
    return name, {key: value for key, value in written.items() if key != "name" and not is_term_key(kind, key)}


def is_term_key(kind: str, key: str) -> bool:
    """Return whether `key` belongs to a term of the objective rather than to the options of its loss."""
    return kind == "loss" and key in TERM_KEYS


def _one(path: Steps, holder: Mapping[str, Any], **kinds: str) -> Iterator[tuple[Steps, str, Any]]:
    for key, kind in kinds.items():
        if holder.get(key) is not None:
            yield (*path, key), kind, holder[key]


def _each(path: Steps, listed: Any, kind: str) -> Iterator[tuple[Steps, str, Any]]:
    for index, written in enumerate(listed if isinstance(listed, list) else ()):
        yield (*path, index), kind, written


def _transforms(path: Steps, written: Any) -> Iterator[tuple[Steps, str, Any]]:
    yield from _each(path, written, "transform")
    for key, listed in as_mapping(written).items():
        yield from _each((*path, key), listed, "transform")


def as_mapping(value: Any) -> Mapping[str, Any]:
    """Return `value` if it is a mapping, or else an empty one."""
    return value if isinstance(value, Mapping) else {}
