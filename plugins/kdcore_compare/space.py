"""The points of a sweep: values of a recipe's keys."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from kdcore import Recipe, UsageError, load_recipe

if TYPE_CHECKING:
    from optuna.trial import Trial


@dataclass(frozen=True)
class Choice:
    """Some values of a key, as they are written in an override."""

    path: str
    values: tuple[str, ...]

    def suggest(self, trial: Trial) -> str:
        """One of them."""
        return str(trial.suggest_categorical(self.path, self.values))


@dataclass(frozen=True)
class Range:
    """All values of a key from `low` to `high`, both included; with `log`, as many in each decade."""

    path: str
    low: float
    high: float
    log: bool = False
    integer: bool = False

    def suggest(self, trial: Trial) -> str:
        """One of them."""
        if self.integer:
            return str(trial.suggest_int(self.path, int(self.low), int(self.high), log=self.log))
        return repr(trial.suggest_float(self.path, self.low, self.high, log=self.log))


@dataclass(frozen=True)
class Space:
    """Points around a recipe.

    Args:
        source: The recipe.
        overrides: ``key=value`` each, of every point.
        keys: What the points differ in.
        search: How many points are chosen; 0 for every combination of choices.
    """

    source: str
    overrides: tuple[str, ...]
    keys: tuple[Choice | Range, ...]
    search: int = 0

    def points(self) -> list[dict[str, str]]:
        """The values of every point; empty ones where they are chosen on the way."""
        if self.search:
            return [{} for _ in range(self.search)]
        choices = [key for key in self.keys if isinstance(key, Choice)]
        return [
            dict(zip((key.path for key in choices), values, strict=True))
            for values in product(*(key.values for key in choices))
        ]

    def identity(self, recipe: Recipe) -> str:
        """Changes with the recipe and its keys, but not with how many points are searched for."""
        told = json.dumps([recipe.variant, recipe.seeds, [repr(key) for key in self.keys], bool(self.search)])
        return hashlib.sha256(told.encode()).hexdigest()[:8]

    def check(self) -> None:
        """Load the recipe of every point of a grid, and of both ends of every range.

        Raises:
            RecipeError: If one is wrong.
        """
        ends = [(key.path, value) for key in self.keys if isinstance(key, Range) for value in _ends(key)]
        choices = [(key.path, value) for key in self.keys if isinstance(key, Choice) for value in key.values]
        for path, value in [*ends, *choices]:
            load_recipe(self.source, [*self.overrides, f"{path}={value}"])


def space(source: str, overrides: Sequence[str], grid: Sequence[str], search: int, ranges: Sequence[str]) -> Space:
    """The space that the command line describes.

    Args:
        source: The recipe.
        overrides: ``key=value`` each.
        grid: ``key=value,value,…`` each.
        search: How many points to choose; 0 for all of the grid.
        ranges: ``key=low:high``, then ``:log`` or ``:int``, each.

    Raises:
        UsageError: If one is not understood.
    """
    if ranges and not search:
        raise UsageError("a range has no end of values: say how many points to try, --search 20, or list them: --grid key=a,b")
    if not grid and not ranges:
        raise UsageError("nothing to vary: --grid losses.soft-target.weight=0.1,1, or --search 20 --range key=0.01:10:log")
    keys = [*map(_choice, grid), *map(_range, ranges)]
    paths = [key.path for key in keys]
    if twice := [path for path in paths if paths.count(path) > 1]:
        raise UsageError(f"{twice[0]} is given twice")
    return Space(source, tuple(overrides), tuple(keys), search)


def as_overrides(values: Mapping[str, str]) -> list[str]:
    """``key=value`` each."""
    return [f"{path}={value}" for path, value in values.items()]


def _choice(text: str) -> Choice:
    path, equals, listed = text.partition("=")
    values = tuple(dict.fromkeys(each.strip() for each in _split(listed)))
    if not equals or not path or "" in values:
        raise UsageError(f"--grid {text!r} is not understood: write key=value,value")
    return Choice(path, values)


def _split(listed: str) -> list[str]:
    """At the commas that stand in no brackets."""
    parts, depth = [""], 0
    for sign in listed:
        depth += (sign in "[{(") - (sign in ")}]")
        if sign == "," and not depth:
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def _range(text: str) -> Range:
    path, _, rest = text.partition("=")
    low, high, *kinds = [*rest.split(":"), ""] if rest.count(":") < 1 else rest.split(":")
    try:
        found = Range(path, float(low), float(high), "log" in kinds, "int" in kinds)
    except ValueError:
        found = None
    if not path or found is None or set(kinds) - {"log", "int"}:
        raise UsageError(f"--range {text!r} is not understood: write key=low:high, then :log or :int if so")
    if not (math.isfinite(found.low) and math.isfinite(found.high) and found.low < found.high) or (
        found.log and found.low <= 0
    ):
        raise UsageError(f"--range {text!r}: low must be less than high, and with log more than 0")
    return found


def _ends(key: Range) -> list[str]:
    return [str(int(end)) if key.integer else repr(end) for end in (key.low, key.high)]
