"""Conversion of pydantic errors to problems with path, file, line and the nearest valid name."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError

from kdcore.errors import COMMAND_LINE, VALUE, Problem
from kdcore.recipe.yaml import Location, Steps, dotted, place_of
from kdcore.suggestions import did_you_mean, nearest

_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")
_KEY_ERRORS = (*_UNKNOWN_KEY, "missing")
_WORDS = {
    "Input should": "must",
    "Value should": "must",
    "String should": "must",
    "a valid integer, unable to parse string as an integer": "a valid integer",
    "a valid integer, got a number with a fractional part": "a valid integer",
    "a valid number, unable to parse string as a number": "a valid number",
    "a valid boolean, unable to interpret input": "true or false",
    "a valid boolean": "true or false",
    "a valid array": "a list",
    "a valid dictionary": "a mapping",
    "an object": "a mapping",
}
_NOT_SHOWN = ("recipe",)

ALIKE = 0.8
"""Similarity to a valid key at or above which an unknown key counts as a typo rather than as misplaced."""


class Places:
    """Creates problems with their file and line.

    Args:
        places: File and line of each path in the recipe.
        source: Origin of values that are in no file; empty for Python, where a traceback shows it.
        elsewhere: Returns a hint where an unknown key would be valid in the recipe; empty if nowhere.
    """

    def __init__(
        self,
        places: Mapping[Steps, Location],
        source: str = COMMAND_LINE,
        elsewhere: Callable[[Steps], str] = lambda path: "",
    ):
        self.places, self.source, self.elsewhere = dict(places), source, elsewhere

    def problem(self, path: Steps, message: str, hint: str = "") -> Problem:
        """Return a problem at `path`."""
        file, line = place_of(self.places, path)
        return Problem(dotted(path), message, file, line, hint, "" if file or not self.places else self.source)

    def later(self, one: Steps, other: Steps) -> Steps:
        """Return the path with precedence: set on the command line, or else in the recipe's own file; `one` if equal."""
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
    """The value, if the message does not contain it."""
    choices: tuple[str, ...]
    instead: Steps
    """Another path at which the error could be reported."""


def found_by_schema(
    error: ValidationError,
    tree: Any,
    places: Places,
    model: type[BaseModel],
    at: Steps = (),
    of: str = "",
    also: Iterable[str] = (),
) -> list[Problem]:
    """Convert a validation error to problems.

    Args:
        error: Error raised by pydantic.
        tree: The validated values.
        places: Source locations of the values.
        model: Model that validated them.
        at: Path of the values in the recipe.
        of: Component whose options they are, for messages; empty if they are not options.
        also: Further keys that are valid at the top level.
    """
    findings = [_finding(each, tree) for each in error.errors(include_url=False)]
    deepest = [each for each in findings if not (each.in_union and any(_below(other.path, each.path) for other in findings))]
    messages: dict[Steps, list[_Finding]] = {}
    for each in deepest:
        messages.setdefault(each.path, []).append(each)
    problems = []
    for path, group in messages.items():
        if group[0].kind in _UNKNOWN_KEY:
            valid = {*_keys(model, path[:-1]), *(also if len(path) == 1 else ())}
            hint = _key_hint((*at, *path), valid, places)
        elif group[0].kind == "missing" and path[-1] == "name":
            hint = _name_hint(tree, path[:-1])
        else:
            hint = _choice_hint(group)
        message = _joined_message(group)
        if of and len(path) == 1 and group[0].kind in _KEY_ERRORS:
            message = f"the {of} {'needs an' if group[0].kind == 'missing' else 'has no'} option {path[0]!r}"
        location = places.later(path, group[0].instead) if group[0].instead else path
        problems.append(places.problem((*at, *location), message, hint))
    return problems


def _joined_message(group: Sequence[_Finding]) -> str:
    """Join the messages for the alternatives of a union, followed by the value."""
    messages = list(dict.fromkeys(each.message for each in group))
    prefix = next(start for start in ("must be ", "must ", "") if all(message.startswith(start) for message in messages))
    given = next((f", not {each.given}" for each in group if each.given), "")
    return prefix + " or ".join(message.removeprefix(prefix) for message in messages) + given


def _key_hint(path: Steps, valid: Iterable[str], places: Places) -> str:
    """Suggest a similar valid key, or else a place where the key is valid, or else list the valid keys."""
    key, valid = str(path[-1]), sorted(valid)
    if key == "<<":
        return "merge keys are not supported; copy a participant with like: NAME, or a recipe with extends: NAME"
    elsewhere = "" if nearest(key, valid, ALIKE) else places.elsewhere(path)
    return elsewhere or did_you_mean(key, valid)


def _name_hint(tree: Any, path: Steps) -> str:
    """Suggest ``{name: x, option: 1}`` for a component that is written ``{x: {option: 1}}``; `x` may also be an option."""
    for step in path:
        tree = tree[step]
    if not isinstance(tree, Mapping) or len(tree) != 1:
        return ""
    [(name, options)] = tree.items()
    if not isinstance(options, Mapping):
        return ""
    return f"write {{name: {name}, …}} if {name!r} is its name, or {{name: …, {name}: {{…}}}} if it is an option"


def _choice_hint(group: Sequence[_Finding]) -> str:
    near = next((near for each in group if (near := nearest(each.given.strip("'"), each.choices))), "")
    return f"did you mean {near!r}?" if near else ""


def _finding(error: Any, tree: Any) -> _Finding:
    path: list[str | int] = []
    in_union = False
    for number, step in enumerate(error["loc"]):
        if _has(tree, step):
            tree = tree[step]
            path.append(step)
        elif error["type"] in _KEY_ERRORS and number == len(error["loc"]) - 1:
            path.append(step)
        else:
            in_union = in_union or step != "[key]"
    context = error.get("ctx", {})
    path += context.get("at", ())
    message, given = _message(error, path)
    choices = tuple(re.findall(r"'([^']*)'", context.get("expected", "")))
    return _Finding(tuple(path), in_union, error["type"], message, given, choices, context.get("instead", ()))


def _message(error: Any, path: list[str | int]) -> tuple[str, str]:
    """Return the message of an error, and the value if the message does not contain it."""
    kind, text = error["type"], error["msg"]
    if kind in _UNKNOWN_KEY:
        return f"unknown key {path[-1]!r}", ""
    if kind == "missing":
        return f"the key {path[-1]!r} is missing", ""
    if kind == "too_short":
        return "must not be empty", ""
    if kind == "value_error":  # raised by a validator, whose message is complete
        return text.removeprefix("Value error, "), ""
    for old, new in _WORDS.items():
        text = text.replace(old, new)
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
    """Return the valid keys at `path` below a value of type `hint`."""
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
    """Return the type hints of a pydantic model's or dataclass's fields by name; empty for anything else."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return {name: field.annotation for name, field in hint.model_fields.items()}
    if not (isinstance(hint, type) and dataclasses.is_dataclass(hint)):
        return {}
    hints = get_type_hints(hint)
    return {field.name: hints[field.name] for field in dataclasses.fields(hint)}
