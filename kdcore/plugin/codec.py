"""JSON encoding of type hints and values that can be decoded without slow imports."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import sys
import types
from collections.abc import Sequence
from functools import reduce
from importlib import import_module
from operator import or_
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator

from kdcore.plugin.sources import is_light

_PLAIN = (bool, int, float, str, type(None))
_VALIDATORS = {"after": AfterValidator, "before": BeforeValidator}


class NotEncodableError(Exception):
    """Raised for a hint or value that has no JSON form, or whose class is slow to import."""


def encode_hint(hint: Any) -> Any:
    """Encode a type hint as a JSON value.

    Raises:
        NotEncodableError: If the hint has no JSON form.
    """
    if hint is Any:
        return "Any"
    if hint in (None, type(None)):
        return "None"
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return ["annotated", encode_hint(args[0]), *map(_encode_mark, args[1:])]
    if origin is Literal:
        return ["literal", *map(encode_value, args)]
    if origin in (Union, types.UnionType):
        return ["union", *map(encode_hint, args)]
    if isinstance(origin, type):
        return ["generic", _reference(origin), *("…" if each is ... else encode_hint(each) for each in args)]
    if isinstance(hint, type):
        return ["class", _reference(hint)]
    raise NotEncodableError(hint)


def decode_hint(encoded: Any) -> Any:
    """Decode a hint encoded by `encode_hint`."""
    if isinstance(encoded, str):
        return {"Any": Any, "None": None, "…": ...}[encoded]
    kind, *rest = encoded
    if kind == "annotated":
        return Annotated[(decode_hint(rest[0]), *map(_decode_mark, rest[1:]))]  # type: ignore[return-value]
    if kind == "literal":
        return Literal[tuple(map(decode_value, rest))]  # type: ignore[return-value]
    if kind == "union":
        return reduce(or_, map(decode_hint, rest))
    if kind == "generic":
        return _resolve(rest[0])[tuple(map(decode_hint, rest[1:]))]
    return _resolve(rest[0])


def _encode_mark(mark: Any) -> Any:
    """Encode a metadata item of ``Annotated``. The function of a validator may be slow to import, so it is imported late."""
    for name, kind in _VALIDATORS.items():
        if type(mark) is kind:
            if list(inspect.signature(mark.func).parameters.values())[1:]:
                raise NotEncodableError(mark)  # it takes more than the value
            return {name: _reference(mark.func, light=False)}
    return encode_value(mark)


def _decode_mark(encoded: Any) -> Any:
    for name, kind in _VALIDATORS.items():
        if isinstance(encoded, dict) and name in encoded:
            return kind(_lazy_validator(encoded[name]))
    return decode_value(encoded)


def _lazy_validator(reference: str) -> Any:
    def validate(value: Any) -> Any:
        return _resolve(reference)(value)

    validate.__name__ = validate.__qualname__ = reference.rpartition(":")[2]  # pydantic shows the name in error locations
    return validate


def encode_value(value: Any) -> Any:
    """Encode a value as a JSON value.

    Scalars, containers, paths, enum members, and dataclasses of these are supported.

    Raises:
        NotEncodableError: If the value has no JSON form.
    """
    if type(value) in _PLAIN:
        return value
    if type(value) is list:
        return [encode_value(each) for each in value]
    if type(value) is dict:
        return {"dict": [[encode_value(key), encode_value(each)] for key, each in value.items()]}
    if type(value) is tuple:
        return {"tuple": [encode_value(each) for each in value]}
    if type(value) in (set, frozenset):
        return {type(value).__name__: [encode_value(each) for each in value]}
    if isinstance(value, PurePath):
        return {"path": str(value)}
    if isinstance(value, enum.Enum):
        return {"enum": _reference(type(value)), "member": value.name}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        values = {each.name: getattr(value, each.name) for each in dataclasses.fields(value) if each.init}
        return {"object": _reference(type(value)), "fields": {name: encode_value(each) for name, each in values.items()}}
    raise NotEncodableError(value)


def decode_value(encoded: Any) -> Any:
    """Decode a value encoded by `encode_value`."""
    if isinstance(encoded, list):
        return [decode_value(each) for each in encoded]
    if not isinstance(encoded, dict):
        return encoded
    if "object" in encoded:
        fields = {name: decode_value(each) for name, each in encoded["fields"].items()}
        return _resolve(encoded["object"])(**fields)
    if "enum" in encoded:
        return _resolve(encoded["enum"])[encoded["member"]]
    [(kind, content)] = encoded.items()
    if kind == "dict":
        return {decode_value(key): decode_value(each) for key, each in content}
    containers: dict[str, Any] = {"tuple": tuple, "set": set, "frozenset": frozenset}
    return Path(content) if kind == "path" else containers[kind](decode_value(each) for each in content)


def _reference(thing: Any, light: bool = True) -> str:
    """Return ``module:name``, which `_resolve` turns back into the object."""
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", "")
    if not isinstance(module, str) or (light and not is_light(module)):
        raise NotEncodableError(thing)
    try:
        resolved = _attribute(sys.modules[module], name.split("."))
    except (KeyError, AttributeError):
        raise NotEncodableError(thing) from None
    if resolved is not thing:
        raise NotEncodableError(thing)
    return f"{module}:{name}"


def _resolve(reference: str) -> Any:
    module, _, name = reference.partition(":")
    return _attribute(import_module(module), name.split("."))


def _attribute(module: Any, names: Sequence[str]) -> Any:
    return reduce(getattr, names, module)
