"""Options of a component with all defaults filled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, to_jsonable_python

from kdcore.contracts.options import IfSet
from kdcore.plugin.option_schema import validated
from kdcore.plugin.registry import Entry


def filled_options(entry: Entry, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain values of all options, without those whose default a recipe cannot express, such as a function.

    Options marked `IfSet` are left out while they have their default, whether that is written or not.
    """
    values = validated(entry, options)
    unsayable = {name for name, value in values if name not in options and not _sayable(value)}
    fields = type(values).model_fields
    unset = {name for name, value in values if _only_if_set(fields[name]) and value == fields[name].get_default()}
    return values.model_dump(mode="json", exclude=unsayable | unset)


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
