"""YAML that remembers where everything was said: reading with file and line, and writing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from kdcore.errors import Problem, RecipeError

Steps: TypeAlias = tuple[str | int, ...]
"""Steps from the top of a recipe: keys and, in lists, positions."""

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

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 - PyYAML's own class attribute, replaced


class _Dumper(yaml.SafeDumper):
    """Quotes whatever either YAML version would take for something else than text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.Node:
        """Escapes the line breaks that PyYAML writes as they are but reads as spaces."""
        return self.represent_scalar(_TAG + "str", text, style='"' if set(text) & set("\x85\u2028\u2029") else None)


_Dumper.add_representer(str, _Dumper.represent_text)
for _name, _pattern in _SCALARS.items():
    _whole = re.compile(rf"(?:{_pattern.pattern})\Z")
    _Loader.add_implicit_resolver(_TAG + _name, _whole, None)
    _Dumper.add_implicit_resolver(_TAG + _name, _whole, None)


@dataclass(frozen=True)
class Node:
    """A value, and where it was said: the line of its key, or of the list entry.

    Args:
        value: A scalar, a list of nodes, or a dict of nodes.
        file: None for what the command line said.
        line: Counted from 1.
    """

    value: Any
    file: Path | None = None
    line: int | None = None

    @property
    def is_mapping(self) -> bool:
        """True if it holds nodes by key."""
        return isinstance(self.value, dict)

    @property
    def is_list(self) -> bool:
        """True if it holds nodes in order."""
        return isinstance(self.value, list)

    def get(self, key: str) -> Node | None:
        """The node under `key`; None if this is no mapping or has no such key."""
        return self.value.get(key) if self.is_mapping else None

    def replaced(self, value: Any) -> Node:
        """Another value, said at the same place."""
        return Node(value, self.file, self.line)

    def plain(self) -> Any:
        """The value without places."""
        if self.is_mapping:
            return {key: each.plain() for key, each in self.value.items()}
        return [each.plain() for each in self.value] if self.is_list else self.value

    def places(self, path: Steps = ()) -> Iterator[tuple[Steps, tuple[Path | None, int | None]]]:
        """Every path below, with its file and line."""
        yield path, (self.file, self.line if self.file else None)
        children = self.value.items() if self.is_mapping else enumerate(self.value) if self.is_list else ()
        for key, each in children:
            yield from each.places((*path, key))


def dotted(path: Steps) -> str:
    """``("losses", 2, "weight")`` as people write it: ``losses[2].weight``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def steps(path: str) -> Steps:
    """The other way round."""
    return tuple(int(index) if index else key for index, key in re.findall(r"\[(\d+)\]|([^.\[\]]+)", path))


def place_of(places: dict[Steps, tuple[Path | None, int | None]], path: Steps) -> tuple[Path | None, int | None]:
    """File and line of the longest beginning of `path` that was written anywhere."""
    for length in range(len(path), -1, -1):
        if path[:length] in places:
            return places[path[:length]]
    return None, None


def read(file: Path, problems: list[Problem]) -> Node:
    """The mapping that a file holds. What can be stepped over, such as a key given twice, is added to `problems`.

    Raises:
        RecipeError: If nothing can be made of the file.
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
        raise _refused(file, "must hold a mapping of keys, such as 'version: 1'", node.line)
    return node


def parse(text: str, file: Path | None, problems: list[Problem]) -> Node:
    """The value that `text` holds, with lines of `file`.

    Raises:
        RecipeError: If it is no YAML, or grows too large once its aliases are written out.
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
    """YAML of plain values, keys in the order given."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Converter:
    """Turns PyYAML's nodes into ours, aliases written out."""

    def __init__(self, file: Path | None, problems: list[Problem]):
        self.file, self.problems, self.count = file, problems, 0

    def convert(self, node: yaml.Node, path: Steps, line: int) -> Node:
        self.count += 1
        if self.count > MAX_NODES:
            raise _refused(self.file, f"has more than {MAX_NODES} values once its aliases are written out", line)
        if len(path) > MAX_DEPTH:
            raise _refused(self.file, f"is nested more than {MAX_DEPTH} levels deep, or contains itself", line)
        kind = node.tag.removeprefix(_TAG)
        if kind not in {*_SCALARS, "str", "seq", "map"}:
            self._problem(path, node, f"the tag {node.tag!r} is refused: a recipe holds plain values only")
        if isinstance(node, yaml.MappingNode):
            return Node(self._mapping(node, path), self.file, line)
        if isinstance(node, yaml.SequenceNode):
            items = [self.convert(each, (*path, i), _line(each)) for i, each in enumerate(node.value)]
            return Node(items, self.file, line)
        return Node(self._scalar(kind, node, path), self.file, line)

    def _mapping(self, node: yaml.MappingNode, path: Steps) -> dict[str, Node]:
        found: dict[str, Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._problem(path, key, "a key must be plain text")
                continue
            here = (*path, key.value)
            converted = self.convert(value, here, _line(key))
            if key.value in found:
                self._problem(here, key, f"the key {key.value!r} is given twice, first in line {found[key.value].line}")
            found.setdefault(key.value, converted)
        return found

    def _scalar(self, kind: str, node: yaml.Node, path: Steps) -> Any:
        text = node.value
        if kind in _SCALARS and not _SCALARS[kind].fullmatch(text):
            self._problem(path, node, f"{text!r} is no {kind}")
            return None
        if kind == "int":
            digits = text.lstrip("+-")
            return (
                int(text, {"0o": 8, "0x": 16}.get(digits[:2], 10))
                if len(digits) < 1000
                else self._problem(path, node, "too long a number")
            )
        if kind == "float":
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        return text.lower() == "true" if kind == "bool" else None if kind == "null" else text

    def _problem(self, path: Steps, node: yaml.Node, message: str) -> None:
        self.problems.append(Problem(dotted(path), message, self.file, _line(node) if self.file else None))


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _refused(file: Path | None, message: str, line: int | None = None, hint: str = "") -> RecipeError:
    return RecipeError([Problem("", message, file, line if file else None, hint)])
