"""Options of a component with all defaults written out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_jsonable_python

from kdcore.plugin.option_schema import options_model
from kdcore.plugin.registry import Entry


def validated(entry: Entry, options: Mapping[str, Any]) -> BaseModel:
    """A component's options as their hints have them; text is no number here, nor a number text.

    Raises:
        pydantic.ValidationError: If they do not fit the schema.
        PluginError: If there is no schema.
    """
    return options_model(entry).model_validate_json(json.dumps(options), strict=True)


def filled_options(entry: Entry, options: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values of all options; without those whose default no recipe can write, such as a function."""
    values = validated(entry, options)
    unsayable = {name for name, value in values if name not in options and not _sayable(value)}
    return values.model_dump(mode="json", exclude=unsayable)


def _sayable(value: Any) -> bool:
    try:
        to_jsonable_python(value)
    except (PydanticSerializationError, ValueError):
        return False
    return True
