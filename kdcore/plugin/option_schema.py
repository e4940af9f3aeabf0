"""Schemas of components' options, taken from their constructors: there is no second list of options.

A schema is kept in the cache folder, so that a component is imported again only after its code has changed.
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
    """One option of a component, as text; ``devices.NAME.rate`` for a field of a nested one, ``joints[].name`` in a list."""

    name: str
    type: str
    default: str
    required: bool
    description: str


@dataclass(frozen=True)
class Description:
    """The documentation of a component."""

    name: str
    kind: str
    plugin: str
    target: str
    summary: str
    doc: str
    options: tuple[Option, ...]


@cache
def options_model(entry: Entry) -> type[BaseModel]:
    """Return the schema of a component's options.

    An option is a parameter of the constructor: its type hint, its default, its line in the docstring's ``Args:``. Not options
    are ``*args`` and ``**kwargs`` (spell out what a recipe may set) and what kdcore fills in (`constructors.GIVEN`). A home
    folder's ``~`` is expanded in paths. A component that is an object rather than a class, such as a modality, has no options.

    Raises:
        PluginError: If the component cannot be loaded or its constructor does not yield a schema, naming plugin and component.
    """
    return model_of(entry, _parameters(entry))


def validated(entry: Entry, options: Mapping[str, Any]) -> BaseModel:
    """Return a component's options as their hints have them. Text is not converted to numbers, nor numbers to text.

    Raises:
        pydantic.ValidationError: If they do not fit the schema.
        PluginError: If there is no schema.
    """
    return options_model(entry).model_validate_json(json.dumps(options), strict=True)


def filled_options(entry: Entry, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain values of all options, without those whose default a recipe cannot express, such as a function.

    Options marked `IfSet` are left out while they have their default, whether that is written or not.
    """
    values = validated(entry, options)
    unsayable = {name for name, value in values if name not in options and not _sayable(value)}
    fields = type(values).model_fields
    unset = {name for name, value in values if _only_if_set(fields[name]) and value == fields[name].get_default()}
    return values.model_dump(mode="json", exclude=unsayable | unset)


def make(entry: Entry, options: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> Any:
    """Construct a component with its options checked and completed, and with those of `given` that its constructor asks for.

    Raises:
        ValidationError: If an option is wrong.
        Exception: Whatever the plugin's constructor raises.
    """
    component = entry.load()
    wanted = inspect.signature(component).parameters
    asked = {name: value for name, value in (given or {}).items() if name in wanted}
    if entry.is_factory and "num_classes" in (given or {}) and any(each.kind is each.VAR_KEYWORD for each in wanted.values()):
        asked["num_classes"] = given["num_classes"]  # type: ignore[index]  # such as torchvision's, which pass **kwargs on
    return construct(component, {**asked, **dict(options_model(entry)(**options))})


def construct(component: Any, arguments: Mapping[str, Any]) -> Any:
    """Return ``component(**arguments)``.

    Raises:
        TypeError: If it is a torch module whose constructor does not call ``super().__init__()`` first.
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


def is_path(annotation: Any) -> bool:
    """Return whether an option's type is a path, or may be one."""
    return annotation is Path or any(is_path(each) for each in get_args(annotation))


def describe(entry: Entry) -> Description:
    """Return what ``kdcore describe`` shows of a component.

    Raises:
        PluginError: As `options_model`.
    """
    question = "description with nested options"
    known = recall(entry, question)
    if known is None:
        component = entry.load()
        doc = docstring(component) if callable(component) else _doc_of_object(component)
        known = {"doc": doc, "options": [tuple(each) for each in _options(read_parameters(entry))]}
        remember(entry, question, known)
    doc, options = known["doc"], tuple(Option(*each) for each in known["options"])
    summary = doc.partition("\n\n")[0].replace("\n", " ")
    return Description(entry.name, entry.kind, entry.plugin, entry.target, summary, doc, options)


@cache
def _parameters(entry: Entry) -> Mapping[str, Parameter]:
    question = "options"
    known = recall(entry, question)
    if known is not None:
        with suppress(ImportError, AttributeError, TypeError, ValueError, LookupError):
            return {name: Parameter(decode_hint(hint), *others) for name, hint, *others in known}
    found = settled_parameters(entry)
    with suppress(NotEncodableError):
        remember(entry, question, [(name, encode_hint(each.hint), *each[1:]) for name, each in found.items()])
    return found


def _options(parameters: Mapping[str, Parameter]) -> Iterator[Option]:
    """Every option, followed by the fields of the types that it is made of."""
    for name, each in parameters.items():
        yield _option(name, each)
        yield from _nested(name, each.hint, ())


def _nested(name: str, hint: Any, above: tuple[type, ...]) -> Iterator[Option]:
    """The fields of a dataclass in an option's type; not of one that a number may stand for, such as `Ramp`."""
    origin, args = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and is_dataclass(hint) and hint not in above:
        docs, hints = argument_docs(hint), get_type_hints(hint, include_extras=True)
        for each in fields(hint):
            if each.init:
                default = each.default if each.default is not MISSING else None
                default = each.default_factory() if each.default_factory is not MISSING else default
                required = each.default is MISSING and each.default_factory is MISSING
                inner = f"{name}.{each.name}"
                yield _option(inner, Parameter(hints[each.name], default, required, docs.get(each.name, "")))
                yield from _nested(inner, hints[each.name], (*above, hint))
    elif origin is Annotated:
        yield from _nested(name, args[0], above)
    elif origin is dict:
        yield from _nested(f"{name}.NAME", args[1], above)
    elif origin in (list, tuple, set, frozenset):
        for each in dict.fromkeys(args):
            yield from _nested(f"{name}[]", each, above)
    elif origin in (Union, types.UnionType) and not {int, float} & {
        get_args(each)[0] if get_args(each) else each for each in args
    }:
        for each in args:
            yield from _nested(name, each, above)


def _option(name: str, parameter: Parameter) -> Option:
    default = "" if parameter.required else _default_text(parameter.default)
    return Option(name, hint_text(parameter.hint), default, parameter.required, parameter.description)


def _only_if_set(field: FieldInfo) -> bool:
    """True if an option is marked `IfSet`. Pydantic wraps the annotation of one whose default is None in ``Optional``."""
    inside = [mark for each in get_args(field.annotation) for mark in getattr(each, "__metadata__", ())]
    return IfSet() in [*field.metadata, *inside]


def _sayable(value: Any) -> bool:
    try:
        to_jsonable_python(value)
    except (PydanticSerializationError, ValueError):
        return False
    return True


def _doc_of_object(component: Any) -> str:
    """The description of a component that is an object, then its other fields, a line each."""
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
    """A default as a recipe writes it, where a recipe can."""
    if isinstance(value, type) or inspect.isroutine(value):
        return value.__name__
    try:
        return json.dumps(to_jsonable_python(value), ensure_ascii=False)
    except (ValueError, TypeError):
        return repr(value)
