"""Conversion of pydantic's errors to problems with path, file, line and the nearest valid name."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError

from kdcore.errors import VALUE, Problem
from kdcore.recipe.yaml import Steps, dotted, place_of
from kdcore.suggestions import did_you_mean, nearest

_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")
_WORDS = {
    "Input should": "must",
    "Value should": "must",
    "String should": "must",
    "a valid array": "a list",
    "a valid dictionary": "a mapping",
    "an object": "a mapping",
}
_NOT_SHOWN = ("recipe",)

ALIKE = 0.8
"""Similarity from which on an unknown key is a slip of the pen rather than one that belongs elsewhere."""


class Places:
    """Makes problems that know their file and line.

    Args:
        places: Path → file and line, for all that was written.
        source: What wrote that which is in no file; empty for Python, whose own tracebacks say it.
        elsewhere: Says of an unknown key where else in the recipe it would be valid; empty if nowhere.
    """

    def __init__(
        self,
        places: Mapping[Steps, tuple[Path | None, int | None]],
        source: str = "command line",
        elsewhere: Callable[[Steps], str] = lambda path: "",
    ):
        self.places, self.source, self.elsewhere = dict(places), source, elsewhere

    def problem(self, path: Steps, message: str, hint: str = "") -> Problem:
        """A problem at `path`."""
        file, line = place_of(self.places, path)
        said = message if file or not self.places or not self.source else f"{message} ({self.source})"
        return Problem(dotted(path), said, file, line, hint)

    def later(self, one: Steps, other: Steps) -> Steps:
        """The one of two that was said last: on the command line, else in the recipe's own file; `one` if they are alike."""
        return other if self._rank(other) > self._rank(one) else one

    def _rank(self, path: Steps) -> int:
        file, own = (place_of(self.places, each)[0] for each in (path, ()))
        return 2 if file is None else int(file == own)


class _Finding(NamedTuple):
    path: Steps
    in_union: bool
    kind: str
    message: str
    given: str
    """The value, where the message does not say it."""
    choices: tuple[str, ...]
    instead: Steps
    """Another place that the error may as well stand at."""

    @property
    def names_key(self) -> bool:
        return self.kind in _UNKNOWN_KEY or self.kind == "missing"


def found_by_schema(
    error: ValidationError,
    tree: Any,
    places: Places,
    model: type[BaseModel],
    at: Steps = (),
    of: str = "",
    also: Iterable[str] = (),
) -> list[Problem]:
    """A problem for every error.

    Args:
        error: What pydantic raised.
        tree: The plain values that it was given.
        places: Where they were written.
        model: By which they were judged.
        at: Where in the recipe they stand.
        of: The component whose options they are, if they are.
        also: Keys that are valid there besides the model's own.
    """
    findings = [_finding(each, tree) for each in error.errors(include_url=False)]
    deepest = [each for each in findings if not (each.in_union and any(_below(other.path, each.path) for other in findings))]
    messages: dict[Steps, list[_Finding]] = {}
    for each in deepest:
        messages.setdefault(each.path, []).append(each)
    problems = []
    for path, group in messages.items():
        known = {*_keys(model, path[:-1]), *(also if len(path) == 1 else ())}
        hint = _key_meant((*at, *path), known, places) if group[0].kind in _UNKNOWN_KEY else _choice_meant(group)
        message = _together(group)
        if of and len(path) == 1 and group[0].names_key:
            message = f"the {of} {'needs an' if group[0].kind == 'missing' else 'has no'} option {path[0]!r}"
        where = places.later(path, group[0].instead) if group[0].instead else path
        problems.append(places.problem((*at, *where), message, hint))
    return problems


def _together(group: Sequence[_Finding]) -> str:
    """The types that the alternatives of a union accept, and once the value they got."""
    wants = list(dict.fromkeys(each.message for each in group))
    same = next(start for start in ("must be ", "must ", "") if all(want.startswith(start) for want in wants))
    given = next((f", not {each.given}" for each in group if each.given), "")
    return same + " or ".join(want.removeprefix(same) for want in wants) + given


def _key_meant(path: Steps, known: Iterable[str], places: Places) -> str:
    """A key that is nearly the same and valid there; else where the same key is valid; else the keys that are valid there."""
    key, known = str(path[-1]), sorted(known)
    elsewhere = "" if nearest(key, known, ALIKE) else places.elsewhere(path)
    return elsewhere or did_you_mean(key, known)


def _choice_meant(group: Sequence[_Finding]) -> str:
    near = next((near for each in group if (near := nearest(each.given.strip("'"), each.choices))), "")
    return f"did you mean {near!r}?" if near else ""


def _finding(error: Any, tree: Any) -> _Finding:
    path: list[str | int] = []
    in_union = False
    names_key = error["type"] in _UNKNOWN_KEY or error["type"] == "missing"
    for number, step in enumerate(error["loc"]):
        if _has(tree, step):
            tree = tree[step]
            path.append(step)
        elif names_key and number == len(error["loc"]) - 1:
            path.append(step)
        else:
            in_union = in_union or step != "[key]"
    context = error.get("ctx", {})
    path += context.get("at", ())
    message, given = _message(error, path)
    choices = tuple(re.findall(r"'([^']*)'", context.get("expected", "")))
    return _Finding(tuple(path), in_union, error["type"], message, given, choices, context.get("instead", ()))


def _message(error: Any, path: list[str | int]) -> tuple[str, str]:
    """The error's message, and the value if the message does not contain it."""
    kind, text = error["type"], error["msg"]
    if kind in _UNKNOWN_KEY:
        return f"unknown key {path[-1]!r}", ""
    if kind == "missing":
        return f"the key {path[-1]!r} is missing", ""
    if kind == "too_short":
        return "must not be empty", ""
    if kind == "value_error":  # of a validator, which says the whole
        return text.removeprefix("Value error, "), ""
    for pydantics, ours in _WORDS.items():
        text = text.replace(pydantics, ours)
    return text, "" if kind in _NOT_SHOWN else _short(error["input"])


def _short(value: Any) -> str:
    kinds = {dict: "a mapping", list: "a list", type(None): "null", bool: str(value).lower()}
    text = kinds.get(type(value), repr(value))
    return text if len(text) <= VALUE else f"{text[:VALUE]}…"


def _has(tree: Any, step: str | int) -> bool:
    if isinstance(tree, Mapping):
        return step in tree
    return isinstance(tree, list) and isinstance(step, int) and step < len(tree)


def _below(path: Steps, above: Steps) -> bool:
    return len(path) > len(above) and path[: len(above)] == above


def _keys(hint: Any, path: Steps) -> set[str]:
    """Keys that are valid at `path` below something of type `hint`."""
    hints = list(_alternatives(hint))
    for step in path:
        hints = [inner for each in hints for inner in _inside(each, step)]
    return {name for each in hints for name in fields_of(each)}


def _alternatives(hint: Any) -> Iterator[Any]:
    if get_origin(hint) is Annotated:
        yield from _alternatives(get_args(hint)[0])
    elif get_origin(hint) in (Union, types.UnionType):
        for each in get_args(hint):
            yield from _alternatives(each)
    else:
        yield hint


def _inside(hint: Any, step: str | int) -> Iterator[Any]:
    fields = fields_of(hint)
    if fields:
        inner = fields.get(str(step))
    else:
        inner = next(iter(get_args(hint)[-1:] if get_origin(hint) is dict else get_args(hint)), None)
    if inner is not None:
        yield from _alternatives(inner)


def fields_of(hint: Any) -> dict[str, Any]:
    """Field → type hint of a pydantic model or a dataclass; empty for anything else."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return {name: field.annotation for name, field in hint.model_fields.items()}
    if not (isinstance(hint, type) and dataclasses.is_dataclass(hint)):
        return {}
    hints = get_type_hints(hint)
    return {field.name: hints[field.name] for field in dataclasses.fields(hint)}
