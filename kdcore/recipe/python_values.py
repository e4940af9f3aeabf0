"""Recipes written as Python values: the tree that a file would give, with functions and classes by name."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from enum import Enum
from functools import reduce
from os import PathLike, fspath
from typing import Any

from pydantic import BaseModel

from kdcore.errors import Problem, RecipeError
from kdcore.recipe.yaml import Location, Node, Steps, dotted


def node_of(values: Any, places: Mapping[Steps, Location] | None = None) -> Node:
    """The values of a recipe as nodes.

    A function or class stands for ``module:name``, by which a recipe names the factory of an encoder. Tuples and sets become
    lists, paths become text, and dataclasses, such as `kdcore.Training`, become mappings.

    Args:
        values: A mapping, such as ``{"version": 1, "data": {…}, "student": {…}}``.
        places: Where the values were written, if they come from a file.

    Raises:
        RecipeError: If something in it has no form in a recipe, with the path of each such value.
    """
    problems: list[Problem] = []
    node = _node(values, (), places or {}, problems)
    if problems:
        raise RecipeError(problems)
    return node


def _node(value: Any, path: Steps, places: Mapping[Steps, Location], problems: list[Problem]) -> Node:
    def inner(step: str | int, each: Any) -> Node:
        return _node(each, (*path, step), places, problems)

    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_unset=True)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    file, line = places.get(path, (None, None))
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                problems.append(Problem(dotted(path), f"a key must be text, not {key!r}"))
        return Node({key: inner(key, each) for key, each in value.items() if isinstance(key, str)}, file, line)
    if isinstance(value, list | tuple | set | frozenset):
        entries = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return Node([inner(index, each) for index, each in enumerate(entries)], file, line)
    try:
        return Node(_scalar(value), file, line)
    except ValueError as error:
        problems.append(Problem(dotted(path), str(error)))
        return Node(None, file, line)


def _scalar(value: Any) -> Any:
    if isinstance(value, Enum):
        value = value.value
    if value is None or type(value) in (str, bool, int, float):
        return value
    if isinstance(value, str | PathLike):
        return str(fspath(value))
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a scalar of NumPy or torch
        return value.item()
    if hasattr(value, "parameters") and not isinstance(value, type):
        raise ValueError(
            f"a recipe cannot hold the network {type(value).__name__}(…): it constructs one for each seed; name a function or "
            "class that returns it, or use kdcore.distil to train one network"
        )
    if callable(value):
        return factory_name(value)
    raise ValueError(f"a recipe cannot hold a {type(value).__name__}")


def factory_name(factory: Any) -> str:
    """``module:name`` of a function or class, by which `Registry.get` finds it again.

    Raises:
        ValueError: If it has no such name, such as a lambda.
    """
    module, name = getattr(factory, "__module__", None), getattr(factory, "__qualname__", "")
    try:
        if module and reduce(getattr, name.split("."), sys.modules[module]) is factory:
            return f"{module}:{name}"
    except (AttributeError, KeyError):
        pass
    what = f"{name or type(factory).__name__!r} has no name by which a recipe could find it again"
    raise ValueError(f"{what}: define it at the top of a module or cell")
