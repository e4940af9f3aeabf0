"""Schemas of components' options, read off their constructors: there is no second list of options."""

from __future__ import annotations

import inspect
import json
import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator
from pydantic.errors import PydanticUserError
from pydantic_core import to_jsonable_python

from kdcore.errors import PluginError
from kdcore.plugin.docstring import argument_docs, docstring, hint_text
from kdcore.plugin.registry import Entry

GIVEN: Mapping[str, frozenset[str]] = {"encoder": frozenset({"num_classes", "in_shape"})}
"""Kind → constructor parameters that kdcore fills in; they are no options."""

TERM_KEYS = ("weight", "id", "teachers")
"""What a recipe may say of any loss besides the loss's own options."""

_NO_DEFAULT = inspect.Parameter.empty
_CONFIG = ConfigDict(extra="forbid", arbitrary_types_allowed=True, protected_namespaces=(), ser_json_inf_nan="constants")


class Option(NamedTuple):
    """One option of a component, as text."""

    name: str
    type: str
    default: str
    required: bool
    description: str


@dataclass(frozen=True)
class Description:
    """All that a component says of itself."""

    name: str
    kind: str
    plugin: str
    target: str
    summary: str
    doc: str
    options: tuple[Option, ...]


class _Parameter(NamedTuple):
    hint: Any
    default: Any
    description: str


@cache
def options_model(entry: Entry) -> type[BaseModel]:
    """The schema of a component's options.

    An option is a parameter of the constructor: its type hint, its default, its line in the docstring's ``Args:``. Not options
    are ``*args`` and ``**kwargs`` (spell out what a recipe may set) and what kdcore fills in (`GIVEN`). A home folder's
    ``~`` is expanded in paths. A component that is an object rather than a class, such as a modality, has no options.

    Raises:
        PluginError: If the component cannot be loaded or its constructor does not yield a schema, naming plugin and component.
    """
    parameters = _parameters(entry)
    settled = _settled_defaults(entry, parameters)
    definitions = {
        name: (each.hint, Field(settled.get(name, ...), description=each.description or None))
        for name, each in parameters.items()
    }
    return _model(entry, definitions)


def make(entry: Entry, options: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> Any:
    """The component with its options checked and completed, and with those of `given` that its constructor asks for.

    Raises:
        ValidationError: If an option is wrong.
        Exception: Whatever the plugin's constructor raises.
    """
    component = entry.load()
    wanted = inspect.signature(component).parameters
    asked = {name: value for name, value in (given or {}).items() if name in wanted}
    return construct(component, {**asked, **dict(options_model(entry)(**options))})


def construct(component: Any, arguments: Mapping[str, Any]) -> Any:
    """``component(**arguments)``.

    Raises:
        TypeError: If it is a torch module whose constructor does not begin as theirs must.
        Exception: Whatever else the constructor raises.
    """
    torch = sys.modules.get("torch")
    forgotten = "its constructor must call super().__init__() first"
    try:
        made = component(**arguments)
    except AttributeError as error:
        if "Module.__init__() call" in str(error):
            raise TypeError(forgotten) from error
        raise
    if torch and isinstance(made, torch.nn.Module) and "_modules" not in vars(made):
        raise TypeError(forgotten)
    return made


def describe(entry: Entry) -> Description:
    """What ``kdcore describe`` shows of a component.

    Raises:
        PluginError: As `options_model`.
    """
    component = entry.load()
    doc = docstring(component) if callable(component) else _doc_of_object(component)
    options = tuple(_option(name, each) for name, each in _parameters(entry).items())
    return Description(
        entry.name, entry.kind, entry.plugin, entry.target, doc.partition("\n\n")[0].replace("\n", " "), doc, options
    )


def _option(name: str, parameter: _Parameter) -> Option:
    required = parameter.default is _NO_DEFAULT
    default = "" if required else _default_text(parameter.default)
    return Option(name, hint_text(parameter.hint), default, required, parameter.description)


def _parameters(entry: Entry) -> dict[str, _Parameter]:
    component = entry.load()
    if not callable(component):
        return {}
    try:
        signature = inspect.signature(component)
        hints = get_type_hints(component.__init__ if isinstance(component, type) else component, include_extras=True)
    except Exception as error:  # hints are expressions: evaluating one may raise anything
        raise _broken(entry, f"the type hints of its constructor cannot be read: {type(error).__name__}: {error}") from error
    factories = _factories(component)
    docs = argument_docs(component)
    found: dict[str, _Parameter] = {}
    for name, parameter in signature.parameters.items():
        if name in GIVEN.get(entry.kind, ()) or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        _refuse_unusable(entry, parameter)
        default = factories[name]() if name in factories else parameter.default
        hint = hints.get(name, Any)
        found[name] = _Parameter(hint | None if default is None and hint is not Any else hint, default, docs.get(name, ""))
    return found


def _refuse_unusable(entry: Entry, parameter: inspect.Parameter) -> None:
    reserved = {"name", "options"} | ({*TERM_KEYS} if entry.kind == "loss" else set())
    if parameter.name in reserved:
        raise _broken(entry, f"its constructor has a parameter {parameter.name!r}, which a recipe uses itself; rename it")
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise _broken(entry, f"its constructor takes {parameter.name!r} by position only; options are passed by name")


def _factories(component: Any) -> dict[str, Any]:
    if not is_dataclass(component):
        return {}
    return {field.name: field.default_factory for field in fields(component) if field.default_factory is not MISSING}


def _settled_defaults(entry: Entry, parameters: Mapping[str, _Parameter]) -> dict[str, Any]:
    """Defaults as their hints have them, e.g. 1.0 where the author of a float wrote 1."""
    given = {name: (each.hint, each.default) for name, each in parameters.items() if each.default is not _NO_DEFAULT}
    model = _model(entry, given, validate_default=True)
    try:
        settled = model()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _broken(entry, f"the default of its option {first['loc'][0]!r} does not fit the hint: {first['msg']}") from error
    return {name: getattr(settled, name) for name in given}


def _model(entry: Entry, definitions: Mapping[str, Any], **config: Any) -> type[BaseModel]:
    validators: dict[str, Any] = {"expand": field_validator("*", mode="after")(_with_home)} if definitions else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an option may well be called `copy`
            return create_model(
                entry.qualified, __config__=ConfigDict(**_CONFIG, **config), __validators__=validators, **definitions
            )
    except (PydanticUserError, NameError, TypeError, ValueError) as error:
        raise _broken(entry, f"its constructor yields no schema of options: {error}") from error


def _with_home(value: Any) -> Any:
    if isinstance(value, Path):
        return Path(os.path.expanduser(value))  # unlike Path.expanduser, never raises
    if type(value) in (list, tuple, set):
        return type(value)(map(_with_home, value))
    if type(value) is dict:
        return {key: _with_home(each) for key, each in value.items()}
    return value


def _broken(entry: Entry, reason: str) -> PluginError:
    return PluginError(f"plugin {entry.plugin!r}: {entry.kind} {entry.name!r} ({entry.target}): {reason}")


def _doc_of_object(component: Any) -> str:
    """The description of a component that is an object, then what else it holds, a line each."""
    if not is_dataclass(component):
        return str(component)
    held = {field.name: getattr(component, field.name) for field in fields(component)}
    summary = held.pop("description", "") or str(held.get("name", ""))
    return f"{summary}\n\n" + "\n".join(
        f"{name}: {_plain(value)}" for name, value in held.items() if value not in (None, "", ())
    )


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, Iterable) and not isinstance(value, str) else str(value)


def _default_text(value: Any) -> str:
    """As a recipe writes it, where a recipe can."""
    if isinstance(value, type) or inspect.isroutine(value):
        return value.__name__
    try:
        return json.dumps(to_jsonable_python(value), ensure_ascii=False)
    except (ValueError, TypeError):
        return repr(value)
