"""Docstrings and type hints of components, as text."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Collection, Iterator
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

_BOUNDS = {
    "gt": ">",
    "ge": "≥",
    "lt": "<",
    "le": "≤",
    "min_length": "length ≥",
    "max_length": "length ≤",
    "multiple_of": "multiple of",
}
_ARGUMENT = re.compile(r"(\*{0,2}\w+(?:, *\*{0,2}\w+)*)(?: *\([^)]*\))?: *(.*)")


def docstring(thing: Any) -> str:
    """Return the docstring of `thing` itself, not an inherited one, nor the one that a dataclass generates."""
    text = inspect.cleandoc(getattr(thing, "__doc__", None) or "")
    made_up = isinstance(thing, type) and is_dataclass(thing) and text.startswith(f"{thing.__name__}(")
    return "" if made_up else text


def argument_docs(component: Any) -> dict[str, str]:
    """Return parameter → description, from the ``Args:`` section of a function's, class's or constructor's docstring."""
    found: dict[str, str] = {}
    for owner in reversed(component.__mro__) if isinstance(component, type) else [component]:
        found |= _arguments(docstring(owner))
        if isinstance(owner, type) and "__init__" in vars(owner):
            found |= _arguments(docstring(vars(owner)["__init__"]))
    return found


def _arguments(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    names: list[str] = []
    for line in _section(text, "Args:"):
        start = _ARGUMENT.fullmatch(line)
        if start:
            names = re.findall(r"\w+", start[1])
        for name in names:
            found[name] = f"{found.get(name, '')} {start[2] if start else line.strip()}".strip()
    return found


def _section(text: str, heading: str) -> list[str]:
    """The lines below `heading`, up to the next line that is not indented, with the indentation they share removed."""
    body = [line for line, inside in _told_apart(text, {heading}) if inside and line != heading]
    return [line for line in inspect.cleandoc("\n" + "\n".join(body)).splitlines() if line]


def without_sections(text: str, *headings: str) -> str:
    """Return a docstring without its sections under `headings`, e.g. ``Args``."""
    lines = _told_apart(text, {f"{each}:" for each in headings})
    return "\n".join(line for line, inside in lines if not inside).strip()


def joined_lines(text: str) -> str:
    """Return the text with each paragraph on one line; lists, directives and indented blocks keep their lines."""
    paragraphs = re.split(r"\n\s*\n", text)
    return "\n\n".join(
        each if re.search(r"^(\s|\.\. |[-*] |\d+\. )", each, re.MULTILINE) else " ".join(each.splitlines())
        for each in paragraphs
    )


def _told_apart(text: str, headings: Collection[str]) -> Iterator[tuple[str, bool]]:
    """Every line, and whether it is one of `headings` or stands below one."""
    inside = False
    for line in text.splitlines():
        inside = line in headings or (inside and (not line or line[0].isspace()))
        yield line, inside


def hint_text(hint: Any) -> str:
    """Return a type hint as text for readers of recipes: ``float > 0 | Ramp``, ``'last' | 'best'``."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return " ".join([hint_text(args[0]), *(bound for each in args[1:] for bound in _bounds(each))])
    if origin in (Union, types.UnionType):
        return " | ".join(dict.fromkeys(_members(hint)))
    if origin is Literal:
        return " | ".join(map(repr, args))
    if args and isinstance(origin, type):
        return f"{origin.__name__}[{', '.join('…' if each is ... else hint_text(each) for each in args)}]"
    return "None" if hint in (None, type(None)) else getattr(hint, "__name__", str(hint))


def _members(hint: Any) -> list[str]:
    """Texts of a union's members. Pydantic wraps an annotated optional type in another one, so a None may come twice."""
    if get_origin(hint) is Annotated and not any(map(_bounds, get_args(hint)[1:])):
        return _members(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return [text for each in get_args(hint) for text in _members(each)]
    return [hint_text(hint)]


def _bounds(mark: Any) -> list[str]:
    return [f"{sign} {value}" for name, sign in _BOUNDS.items() if (value := getattr(mark, name, None)) is not None]
