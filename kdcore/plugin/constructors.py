"""Extraction of options from component constructors. This imports the components."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator
from pydantic.errors import PydanticUserError

from kdcore.errors import PluginError
from kdcore.plugin.docstring import argument_docs
from kdcore.plugin.registry import Entry

GIVEN: Mapping[str, frozenset[str]] = {
    "encoder": frozenset({"num_classes", "in_shape", "spec", "class_embeddings"}),
    "transform": frozenset({"spec"}),
}
"""Constructor parameters that kdcore fills in, by kind of component; they are not options."""

TERM_KEYS = ("weight", "id", "teachers")
"""Keys that a recipe accepts for every loss, in addition to the loss's options."""

_CONFIG = ConfigDict(extra="forbid", arbitrary_types_allowed=True, protected_namespaces=(), ser_json_inf_nan="constants")


class Parameter(NamedTuple):
    """A constructor parameter that is an option of the component.

    Args:
        hint: Type hint.
        default: Default value; ignored if `required`.
        required: True if the parameter has no default.
        description: Its entry in the ``Args:`` section of the docstring.
    """

    hint: Any
    default: Any
    required: bool
    description: str


def settled_parameters(entry: Entry) -> dict[str, Parameter]:
    """Return a component's options with defaults converted to their hinted types, e.g. 1 to 1.0 for a float.

    Raises:
        PluginError: If `read_parameters` raises it, or a default does not match its type hint.
    """
    parameters = read_parameters(entry)
    optional = {name: each for name, each in parameters.items() if not each.required}
    try:
        settled = model_of(entry, optional, validate_default=True)()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = f"the default of its option {first['loc'][0]!r} does not match its type hint: {first['msg']}"
        raise _broken(entry, what) from error
    return parameters | {name: each._replace(default=getattr(settled, name)) for name, each in optional.items()}


def read_parameters(entry: Entry) -> dict[str, Parameter]:
    """Return a component's options from its constructor. A component that is an object, such as a modality, has none.

    Raises:
        PluginError: If the component cannot be loaded or no schema can be derived from its constructor. The message names the
            plugin and the component.
    """
    component = entry.load()
    if not callable(component):
        return {}
    try:
        signature = inspect.signature(component)
        hints = get_type_hints(component.__init__ if isinstance(component, type) else component, include_extras=True)
    except Exception as error:  # hints are arbitrary expressions
        raise _broken(entry, f"could not read its constructor's type hints: {type(error).__name__}: {error}") from error
    factories = _factories(component)
    docs = argument_docs(component)
    options: dict[str, Parameter] = {}
    for name, parameter in signature.parameters.items():
        if name in GIVEN.get(entry.kind, ()) or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        _refuse_unusable(entry, parameter)
        default = factories[name]() if name in factories else parameter.default
        required = default is parameter.empty
        hint = hints.get(name, Any)
        hint = hint | None if default is None and hint is not Any else hint
        options[name] = Parameter(hint, None if required else default, required, docs.get(name, ""))
    return options


def model_of(entry: Entry, parameters: Mapping[str, Parameter], **config: Any) -> type[BaseModel]:
    """Return the pydantic model of a component's options. A leading ``~`` in paths is expanded.

    Raises:
        PluginError: If pydantic cannot build a model from the parameters.
    """
    definitions: dict[str, Any] = {
        name: (each.hint, Field(... if each.required else each.default, description=each.description or None))
        for name, each in parameters.items()
    }
    validators: dict[str, Any] = {"expand": field_validator("*", mode="after")(_with_home)} if definitions else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # options may shadow pydantic attributes such as `copy`
            settings = ConfigDict(**_CONFIG, **config)
            return create_model(entry.qualified, __config__=settings, __validators__=validators, **definitions)
    except (PydanticUserError, NameError, TypeError, ValueError) as error:
        raise _broken(entry, f"could not derive a schema of options from its constructor: {error}") from error


def _refuse_unusable(entry: Entry, parameter: inspect.Parameter) -> None:
    reserved = {"name", "options"} | ({*TERM_KEYS} if entry.kind == "loss" else set())
    if parameter.name in reserved:
        raise _broken(entry, f"its constructor has a parameter {parameter.name!r}, which is reserved for recipes; rename it")
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise _broken(entry, f"its constructor has a positional-only parameter {parameter.name!r}; options are passed by name")


def _factories(component: Any) -> dict[str, Any]:
    if not is_dataclass(component):
        return {}
    return {field.name: field.default_factory for field in fields(component) if field.default_factory is not MISSING}


def _with_home(value: Any) -> Any:
    if isinstance(value, Path):
        return Path(os.path.expanduser(value))  # unlike Path.expanduser, it never raises
    if type(value) in (list, tuple, set):
        return type(value)(map(_with_home, value))
    if type(value) is dict:
        return {key: _with_home(each) for key, each in value.items()}
    return value


def _broken(entry: Entry, reason: str) -> PluginError:
    return PluginError(f"{entry.located}: {reason}")
