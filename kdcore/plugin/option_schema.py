"""Schemas of component options, derived from constructors.

Schemas are cached on disk, so that a component is only imported again after its code has changed.
"""

from __future__ import annotations

import inspect
import json
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, to_jsonable_python

from kdcore.contracts.options import IfSet
from kdcore.plugin.codec import NotEncodableError, decode_hint, encode_hint
from kdcore.plugin.component_cache import recall, remember
from kdcore.plugin.constructors import Parameter, model_of, read_parameters, settled_parameters
from kdcore.plugin.docstring import argument_docs, docstring, hint_text
from kdcore.plugin.registry import Entry


class Option(NamedTuple):
    """An option of a component, as text. Nested fields are named like ``devices.NAME.rate``, or ``joints[].name`` in a list."""

    name: str
    type: str
    default: str
    required: bool
    description: str


@dataclass(frozen=True)
class Description:
    """Documentation of a component."""

    doc: str
    options: tuple[Option, ...]

    @property
    def summary(self) -> str:
        """The first paragraph of `doc`, in one line."""
        return self.doc.partition("\n\n")[0].replace("\n", " ")


@cache
def options_model(entry: Entry) -> type[BaseModel]:
    """Return the schema of a component's options.

    Each constructor parameter is an option, with its type hint, its default, and its entry in the docstring's ``Args:``.
    ``*args``, ``**kwargs`` and parameters that kdcore fills in (`constructors.GIVEN`) are not options. A leading ``~`` in
    paths is expanded. A component that is an object rather than a class, such as a modality, has no options.

    Raises:
        PluginError: If the component cannot be loaded or no schema can be derived from its constructor. The message names the
            plugin and the component.
    """
    return model_of(entry, _parameters(entry))


def validated(entry: Entry, options: Mapping[str, Any]) -> BaseModel:
    """Validate a component's options. Strings are not converted to numbers, nor numbers to strings.

    Raises:
        pydantic.ValidationError: If the options do not match the schema.
        PluginError: If no schema can be derived.
    """
    return options_model(entry).model_validate_json(json.dumps(options), strict=True)


def filled_options(entry: Entry, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON values of all options, except those whose default a recipe cannot express, such as a function.

    Options marked `IfSet` are omitted if they equal their default, even if the recipe sets them.
    """
    values = validated(entry, options)
    not_serializable = {name for name, value in values if name not in options and not _serializable(value)}
    fields = type(values).model_fields
    unset = {name for name, value in values if _only_if_set(fields[name]) and value == fields[name].get_default()}
    return values.model_dump(mode="json", exclude=not_serializable | unset)


def make(entry: Entry, options: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> Any:
    """Construct a component from validated options, their defaults, and those of `given` that its constructor accepts.

    Args:
        entry: The component.
        options: Options from a recipe.
        given: Arguments that kdcore fills in, such as ``num_classes``.

    Raises:
        ValidationError: If an option is invalid.
        Exception: Any exception raised by the constructor.
    """
    component = entry.load()
    parameters = inspect.signature(component).parameters
    accepted = set(parameters)
    if entry.is_factory and any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        accepted.add("num_classes")  # e.g. torchvision factories, which pass on **kwargs
    filled_in = {name: value for name, value in (given or {}).items() if name in accepted}
    return construct(component, {**filled_in, **dict(options_model(entry)(**options))})


def construct(component: Any, arguments: Mapping[str, Any]) -> Any:
    """Return ``component(**arguments)``.

    Raises:
        TypeError: If the component is a torch module whose constructor does not call ``super().__init__()`` first.
        Exception: Any other exception raised by the constructor.
    """
    torch = sys.modules.get("torch")
    message = "its constructor must call super().__init__() first"
    try:
        instance = component(**arguments)
    except AttributeError as error:
        if "Module.__init__() call" in str(error):
            raise TypeError(message) from error
        raise
    if torch and isinstance(instance, torch.nn.Module) and "_modules" not in vars(instance):
        raise TypeError(message)
    return instance


def is_path(annotation: Any) -> bool:
    """Return whether an option's type is a path or contains one."""
    return annotation is Path or any(is_path(each) for each in get_args(annotation))


def describe(entry: Entry) -> Description:
    """Return the documentation of a component for ``kdcore describe``.

    Raises:
        PluginError: If `options_model` raises it.
    """
    question = "description with nested options"
    cached = recall(entry, question)
    if cached is None:
        component = entry.load()
        doc = docstring(component) if callable(component) else _doc_of_object(component)
        cached = {"doc": doc, "options": [tuple(each) for each in _options(read_parameters(entry))]}
        remember(entry, question, cached)
    return Description(cached["doc"], tuple(Option(*each) for each in cached["options"]))


@cache
def _parameters(entry: Entry) -> Mapping[str, Parameter]:
    question = "options"
    cached = recall(entry, question)
    if cached is not None:
        with suppress(ImportError, AttributeError, TypeError, ValueError, LookupError):
            return {name: Parameter(decode_hint(hint), *others) for name, hint, *others in cached}
    parameters = settled_parameters(entry)
    with suppress(NotEncodableError):
        remember(entry, question, [(name, encode_hint(each.hint), *each[1:]) for name, each in parameters.items()])
    return parameters


def _options(parameters: Mapping[str, Parameter]) -> Iterator[Option]:
    """Yield each option, followed by the fields of dataclasses in its type."""
    for name, each in parameters.items():
        yield _option(name, each)
        yield from _nested(name, each.hint, ())


def _nested(name: str, hint: Any, above: tuple[type, ...]) -> Iterator[Option]:
    """Yield the fields of dataclasses in an option's type, unless a number may replace them, as for `Ramp`."""
    origin, args = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and is_dataclass(hint) and hint not in above:
        docs, hints = argument_docs(hint), get_type_hints(hint, include_extras=True)
        for each in fields(hint):
            if each.init:
                default = each.default if each.default_factory is MISSING else each.default_factory()
                inner = f"{name}.{each.name}"
                yield _option(inner, Parameter(hints[each.name], default, default is MISSING, docs.get(each.name, "")))
                yield from _nested(inner, hints[each.name], (*above, hint))
    elif origin is Annotated:
        yield from _nested(name, args[0], above)
    elif origin is dict:
        yield from _nested(f"{name}.NAME", args[1], above)
    elif origin in (list, tuple, set, frozenset):
        for each in dict.fromkeys(args):
            yield from _nested(f"{name}[]", each, above)
    elif origin in (Union, types.UnionType):
        types_of_union = {get_args(each)[0] if get_args(each) else each for each in args}
        for each in args if types_of_union.isdisjoint((int, float)) else ():
            yield from _nested(name, each, above)


def _option(name: str, parameter: Parameter) -> Option:
    default = "" if parameter.required else _default_text(parameter.default)
    return Option(name, hint_text(parameter.hint), default, parameter.required, parameter.description)


def _only_if_set(field: FieldInfo) -> bool:
    """Return whether an option is marked `IfSet`. Pydantic wraps its annotation in ``Optional`` if the default is None."""
    inside = [mark for each in get_args(field.annotation) for mark in getattr(each, "__metadata__", ())]
    return IfSet() in [*field.metadata, *inside]


def _serializable(value: Any) -> bool:
    try:
        to_jsonable_python(value)
    except (PydanticSerializationError, ValueError):
        return False
    return True


def _doc_of_object(component: Any) -> str:
    """Return the description of a component that is an object, followed by its other fields, one per line."""
    if not is_dataclass(component):
        return str(component)
    values = {field.name: getattr(component, field.name) for field in fields(component)}
    summary = values.pop("description", "") or str(values.get("name", ""))
    return f"{summary}\n\n" + "\n".join(
        f"{name}: {_plain(value)}" for name, value in values.items() if value not in (None, "", ())
    )


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, Iterable) and not isinstance(value, str) else str(value)


def _default_text(value: Any) -> str:
    """Format a default as in a recipe if possible, or else as in Python."""
    if isinstance(value, type) or inspect.isroutine(value):
        return value.__name__
    try:
        return json.dumps(to_jsonable_python(value), ensure_ascii=False)
    except (ValueError, TypeError):
        return repr(value)
