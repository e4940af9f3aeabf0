"""Options of a component with all defaults filled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from kdcore.plugin.option_schema import validated
from kdcore.plugin.registry import Entry


def filled_options(entry: Entry, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain values of all options, without those whose default a recipe cannot express, such as a function."""
    values = validated(entry, options)
    unsayable = {name for name, value in values if name not in options and not _sayable(value)}
    return values.model_dump(mode="json", exclude=unsayable)


def _sayable(value: Any) -> bool:
    try:
        to_jsonable_python(value)
    except (PydanticSerializationError, ValueError):
        return False
    return True
