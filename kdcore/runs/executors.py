"""Executors by name, for the command line."""

from __future__ import annotations

from pydantic import ValidationError

from kdcore.contracts.executor import Executor
from kdcore.errors import KdcoreError, Problem, RecipeError, UsageError, one_line
from kdcore.plugin.manager import plugin_manager
from kdcore.plugin.option_schema import make, options_model
from kdcore.recipe.components import split
from kdcore.recipe.problems import Places, found_by_schema
from kdcore.recipe.yaml import parse


def make_executor(written: str) -> Executor:
    """Construct the executor that ``NAME`` or ``{name: NAME, option: value, …}`` asks for.

    Raises:
        UsageError: If an option is wrong, or the executor cannot be used here.
        PluginError: If no plugin provides it, with the names that there are.
    """
    name, options = _read(written)
    entry = plugin_manager().registry.get("executor", name)
    try:
        return make(entry, options)
    except ValidationError as error:
        problems = found_by_schema(error, options, Places({}), options_model(entry), of=entry.described)
        raise UsageError(f"--executor {name}: {'; '.join(map(str, problems))}") from error
    except KdcoreError:
        raise
    except Exception as error:  # a plugin's constructor may raise anything
        raise UsageError(f"--executor: could not construct {entry.described}: {one_line(error)}") from error


def _read(written: str) -> tuple[str, dict]:
    problems: list[Problem] = []
    try:
        name_and_options = split("executor", parse(written, None, problems).plain())
    except RecipeError:
        name_and_options = None
    if name_and_options is None or problems:
        raise UsageError(f"--executor {written!r}: write NAME or {{name: NAME, option: value}}")
    return name_and_options
