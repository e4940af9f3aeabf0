"""Places where a value breaks a JSON Schema: by jsonschema if installed, else by the few rules that kdcore's schema uses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

try:
    from jsonschema import Draft7Validator
except ImportError:
    Draft7Validator = None

TYPES: Mapping[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
NUMBERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "minimum": lambda value, bound: value >= bound,
    "maximum": lambda value, bound: value <= bound,
    "exclusiveMinimum": lambda value, bound: value > bound,
    "exclusiveMaximum": lambda value, bound: value < bound,
}
SILENT = {
    "$schema", "$defs", "title", "description", "default", "format", "if", "then", "else", "additionalProperties", "examples",
    "propertyNames",
}  # fmt: skip


def errors(schema: Mapping[str, Any], value: Any) -> list[str]:
    """Paths of what is wrong, e.g. ``losses.1``."""
    if Draft7Validator is not None:
        Draft7Validator.check_schema(schema)
        return [".".join(map(str, each.absolute_path)) for each in Draft7Validator(schema).iter_errors(value)]
    return [".".join(map(str, path)) for path in _errors(schema, schema, value, ())]


def _errors(root: Mapping[str, Any], schema: Any, value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    def bad(part: Any, at: Any = value, *steps: Any) -> list[tuple[Any, ...]]:
        return list(_errors(root, part, at, (*path, *steps)))

    if isinstance(schema, bool):
        yield from [] if schema else [path]
        return
    if "$ref" in schema:
        yield from bad(root["$defs"][schema["$ref"].removeprefix("#/$defs/").replace("~1", "/")])
        return
    for key, rule in schema.items():
        if key == "type":
            yield from [] if TYPES[rule](value) else [path]
        elif key in ("enum", "const"):
            yield from [] if value in (rule if key == "enum" else [rule]) else [path]
        elif key == "anyOf":
            yield from [] if any(not bad(each) for each in rule) else [path]
        elif key == "allOf":
            for each in rule:
                yield from bad(each)
        elif key in NUMBERS:
            yield from [path] if TYPES["number"](value) and not NUMBERS[key](value, rule) else []
        elif key in ("minItems", "maxItems"):
            wrong = isinstance(value, list) and (len(value) < rule if key == "minItems" else len(value) > rule)
            yield from [path] if wrong else []
        elif key == "minLength":
            yield from [path] if isinstance(value, str) and len(value) < rule else []
        elif key == "pattern":
            yield from [path] if isinstance(value, str) and not re.search(rule, value) else []
        elif key == "required":
            yield from [path for name in rule if isinstance(value, dict) and name not in value]
        elif key == "properties":
            for name in set(rule) & set(value if isinstance(value, dict) else ()):
                yield from bad(rule[name], value[name], name)
        elif key == "items" and isinstance(value, list):
            for number, each in enumerate(value):
                if isinstance(rule, dict) or number < len(rule):
                    yield from bad(rule if isinstance(rule, dict) else rule[number], each, number)
        elif key not in SILENT and key != "items":
            raise NotImplementedError(key)
    if "if" in schema:
        yield from bad(schema.get("else" if bad(schema["if"]) else "then", True))
    if isinstance(value, dict) and "additionalProperties" in schema:
        for name in set(value) - set(schema.get("properties", ())):
            rule = schema["additionalProperties"]
            yield from [path] if rule is False else bad(rule, value[name], name)
