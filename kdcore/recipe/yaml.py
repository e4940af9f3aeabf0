"""YAML with source locations: reading, and writing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from kdcore.errors import Problem, RecipeError

Steps: TypeAlias = tuple[str | int, ...]
"""Path of a value in a recipe: keys, and indices of lists."""

Location: TypeAlias = tuple[Path | None, int | None]
"""File and line of a value; None if it was not written in a file."""

MAX_BYTES = 1 << 20
MAX_NODES = 20_000
MAX_DEPTH = 100

_SCALARS = {
    "null": re.compile(r"~|null|Null|NULL|"),
    "bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
    "int": re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
    "float": re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
}
_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """Composes nodes by the rules of YAML 1.2: ``1e-3`` is a number, ``yes`` and ``on`` are text."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 - replaces a class attribute of PyYAML


class _Dumper(yaml.SafeDumper):
    """Quotes strings that YAML 1.1 or 1.2 would read as another type."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.Node:
        """Represent text. Line breaks that PyYAML writes unescaped but reads as spaces are escaped."""
        return self.represent_scalar(_TAG + "str", text, style='"' if set(text) & set("\x85\u2028\u2029") else None)


_Dumper.add_representer(str, _Dumper.represent_text)
for _name, _pattern in _SCALARS.items():
    _whole = re.compile(rf"(?:{_pattern.pattern})\Z")
    _Loader.add_implicit_resolver(_TAG + _name, _whole, None)
    _Dumper.add_implicit_resolver(_TAG + _name, _whole, None)


@dataclass(frozen=True)
class Node:
    """A value with its source location: the line of its key or list entry.

    Args:
        value: A scalar, a list of nodes, or a dict of nodes.
        file: File that contains it; None for the command line.
        line: Line number, starting at 1.
    """

    value: Any
    file: Path | None = None
    line: int | None = None

    @property
    def is_mapping(self) -> bool:
        """True if the value is a mapping of nodes."""
        return isinstance(self.value, dict)

    @property
    def is_list(self) -> bool:
        """True if the value is a list of nodes."""
        return isinstance(self.value, list)

    def get(self, key: str) -> Node | None:
        """Return the node at `key`, or None if this is not a mapping or has no such key."""
        return self.value.get(key) if self.is_mapping else None

    def replaced(self, value: Any) -> Node:
        """Return a node with another value at the same location."""
        return Node(value, self.file, self.line)

    def plain(self) -> Any:
        """Return the value as plain Python objects."""
        if self.is_mapping:
            return {key: each.plain() for key, each in self.value.items()}
        return [each.plain() for each in self.value] if self.is_list else self.value

    def places(self, path: Steps = ()) -> Iterator[tuple[Steps, Location]]:
        """Yield each path in this node, with its file and line."""
        yield path, (self.file, self.line if self.file else None)
        children = self.value.items() if self.is_mapping else enumerate(self.value) if self.is_list else ()
        for key, each in children:
            yield from each.places((*path, key))


def leaves(tree: Any, path: Steps = ()) -> Iterator[tuple[Steps, Any]]:
    """Yield the path and value of each entry of nested mappings and lists that is neither."""
    if isinstance(tree, Mapping | list | tuple):
        for key, value in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
            yield from leaves(value, (*path, key))
    else:
        yield path, tree


def dotted(path: Steps) -> str:
    """Format a path, e.g. ``("losses", 2, "weight")`` as ``losses[2].weight``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def steps(path: str) -> Steps:
    """Parse a path formatted by `dotted`."""
    return tuple(int(index) if index else key for index, key in re.findall(r"\[(\d+)\]|([^.\[\]]+)", path))


def place_of(places: Mapping[Steps, Location], path: Steps) -> Location:
    """Return file and line of the longest prefix of `path` that has a location."""
    for length in range(len(path), -1, -1):
        if path[:length] in places:
            return places[path[:length]]
    return None, None


def read(file: Path, problems: list[Problem]) -> Node:
    """Read a mapping from a file. Recoverable errors, such as a duplicate key, are added to `problems`.

    Raises:
        RecipeError: If the file cannot be read or parsed.
    """
    if file.is_dir():
        raise _refused(file, "is a folder, not a recipe")
    if not file.is_file():
        raise _refused(file, "is not a regular file" if file.exists() else "does not exist")
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise _refused(file, f"could not be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise _refused(file, f"is larger than {MAX_BYTES >> 20} MiB, too large for a recipe")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refused(file, f"is not UTF-8 text (byte {error.start})", raw[: error.start].count(b"\n") + 1) from error
    node = parse(text, file, problems)
    if node.value is None:
        raise _refused(file, "is empty")
    if not node.is_mapping:
        raise _refused(file, "must contain a mapping of keys, such as 'version: 1'", node.line)
    return node


def parse(text: str, file: Path | None, problems: list[Problem]) -> Node:
    """Parse `text`, with line numbers in `file`.

    Raises:
        RecipeError: If the text is not valid YAML, or too large once its aliases are expanded.
    """
    loader = None
    try:
        loader = _Loader(text)
        composed = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        hint = "indent with spaces, not tabs" if "'\\t'" in str(error.problem) else ""
        raise _refused(file, f"is not valid YAML: {error.problem}", mark.line + 1 if mark else None, hint) from error
    except yaml.YAMLError as error:
        raise _refused(file, f"is not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise _refused(file, "is nested too deeply") from error
    finally:
        if loader:
            loader.dispose()
    return _Converter(file, problems).convert(composed, (), 1) if composed else Node(None, file, 1)


def dump(tree: Any) -> str:
    """Return plain values as YAML, with keys in their original order."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Converter:
    """Converts PyYAML nodes to `Node`, expanding aliases."""

    def __init__(self, file: Path | None, problems: list[Problem]):
        self.file, self.problems, self.count = file, problems, 0

    def convert(self, node: yaml.Node, path: Steps, line: int) -> Node:
        self.count += 1
        if self.count > MAX_NODES:
            raise _refused(self.file, f"has more than {MAX_NODES} values once its aliases are expanded", line)
        if len(path) > MAX_DEPTH:
            raise _refused(self.file, f"is nested more than {MAX_DEPTH} levels deep, or contains itself", line)
        kind = node.tag.removeprefix(_TAG)
        if kind not in {*_SCALARS, "str", "seq", "map"}:
            self._problem(path, node, f"the tag {node.tag!r} is not supported: a recipe contains plain values only")
        if isinstance(node, yaml.MappingNode):
            return Node(self._mapping(node, path), self.file, line)
        if isinstance(node, yaml.SequenceNode):
            items = [self.convert(each, (*path, i), _line(each)) for i, each in enumerate(node.value)]
            return Node(items, self.file, line)
        return Node(self._scalar(kind, node, path), self.file, line)

    def _mapping(self, node: yaml.MappingNode, path: Steps) -> dict[str, Node]:
        nodes: dict[str, Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._problem(path, key, "a key must be plain text")
                continue
            key_path = (*path, key.value)
            converted = self.convert(value, key_path, _line(key))
            if key.value in nodes:
                self._problem(key_path, key, f"the key {key.value!r} is given twice, first in line {nodes[key.value].line}")
            nodes.setdefault(key.value, converted)
        return nodes

    def _scalar(self, kind: str, node: yaml.Node, path: Steps) -> Any:
        text = node.value
        if kind in _SCALARS and not _SCALARS[kind].fullmatch(text):
            self._problem(path, node, f"{text!r} is not a valid {kind}")
            return None
        if kind == "int":
            digits = text.lstrip("+-")
            if len(digits) >= 1000:
                self._problem(path, node, "the number is too long")
                return None
            return int(text, {"0o": 8, "0x": 16}.get(digits[:2], 10))
        if kind == "float":
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        if kind == "bool":
            return text.lower() == "true"
        return None if kind == "null" else text

    def _problem(self, path: Steps, node: yaml.Node, message: str) -> None:
        self.problems.append(Problem(dotted(path), message, self.file, _line(node) if self.file else None))


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _refused(file: Path | None, message: str, line: int | None = None, hint: str = "") -> RecipeError:
    return RecipeError([Problem("", message, file, line if file else None, hint)])
