"""The search space of a sweep: the keys of a recipe and their values."""

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
    """A list of values of a key, as written in an override."""

    path: str
    values: tuple[str, ...]

    def suggest(self, trial: Trial) -> str:
        """Return the value for a trial."""
        return str(trial.suggest_categorical(self.path, self.values))


@dataclass(frozen=True)
class Range:
    """Values of a key from `low` to `high`, inclusive; with `log`, sampled on a logarithmic scale."""

    path: str
    low: float
    high: float
    log: bool = False
    integer: bool = False

    def suggest(self, trial: Trial) -> str:
        """Return the value for a trial."""
        if self.integer:
            return str(trial.suggest_int(self.path, int(self.low), int(self.high), log=self.log))
        return repr(trial.suggest_float(self.path, self.low, self.high, log=self.log))


@dataclass(frozen=True)
class SearchSpace:
    """The points of a sweep around a recipe.

    Args:
        source: Path or name of the recipe.
        overrides: ``key=value`` each, for every point.
        keys: Keys that differ between points.
        search: Number of points for Optuna to choose; 0 for the full grid.
    """

    source: str
    overrides: tuple[str, ...]
    keys: tuple[Choice | Range, ...]
    search: int = 0

    def points(self) -> list[dict[str, str]]:
        """Return the values of all points; empty for points that Optuna chooses."""
        if self.search:
            return [{} for _ in range(self.search)]
        choices = [key for key in self.keys if isinstance(key, Choice)]
        return [
            dict(zip((key.path for key in choices), values, strict=True))
            for values in product(*(key.values for key in choices))
        ]

    def identity(self, recipe: Recipe) -> str:
        """Return a hash of recipe, seeds and keys, but not of the number of points."""
        content = json.dumps([recipe.variant, recipe.seeds, [repr(key) for key in self.keys], bool(self.search)])
        return hashlib.sha256(content.encode()).hexdigest()[:8]

    def recipes(self) -> list[Recipe]:
        """Return the recipe itself, and the recipe with each value of a choice and both ends of each range.

        Raises:
            RecipeError: If a value is invalid.
        """
        ends = [(key.path, value) for key in self.keys if isinstance(key, Range) for value in _ends(key)]
        choices = [(key.path, value) for key in self.keys if isinstance(key, Choice) for value in key.values]
        changes = [[], *([f"{path}={value}"] for path, value in [*ends, *choices])]
        return [load_recipe(self.source, [*self.overrides, *each]) for each in changes]


def parse_space(source: str, overrides: Sequence[str], grid: Sequence[str], search: int, ranges: Sequence[str]) -> SearchSpace:
    """Parse the search space that the command line describes.

    Args:
        source: Path or name of the recipe.
        overrides: ``key=value`` each, for every point.
        grid: ``key=value,value,…`` each.
        search: Number of points for Optuna to choose; 0 for the full grid.
        ranges: ``key=low:high``, then ``:log`` or ``:int``, each.

    Raises:
        UsageError: If an option cannot be parsed.
    """
    if ranges and not search:
        raise UsageError("--range requires --search N, the number of points to try; to list values, use --grid key=a,b")
    if not grid and not ranges:
        raise UsageError("nothing to vary: use --grid losses.soft-target.weight=0.1,1 or --search 20 --range key=0.01:10:log")
    keys = [*map(_parse_choice, grid), *map(_parse_range, ranges)]
    paths = [key.path for key in keys]
    if twice := [path for path in paths if paths.count(path) > 1]:
        raise UsageError(f"{twice[0]!r} is given twice")
    return SearchSpace(source, tuple(overrides), tuple(keys), search)


def as_overrides(values: Mapping[str, str]) -> list[str]:
    """Format values as ``key=value`` overrides."""
    return [f"{path}={value}" for path, value in values.items()]


def _parse_choice(text: str) -> Choice:
    path, equals, listed = text.partition("=")
    values = tuple(dict.fromkeys(each.strip() for each in _split(listed)))
    if not equals or not path or "" in values:
        raise UsageError(f"--grid {text!r}: expected key=value,value")
    return Choice(path, values)


def _split(listed: str) -> list[str]:
    """Split text at commas outside brackets."""
    parts, depth = [""], 0
    for sign in listed:
        depth += (sign in "[{(") - (sign in ")}]")
        if sign == "," and not depth:
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def _parse_range(text: str) -> Range:
    path, _, rest = text.partition("=")
    low, _, more = rest.partition(":")
    high, *kinds = more.split(":")
    try:
        key = Range(path, float(low), float(high), "log" in kinds, "int" in kinds)
    except ValueError:
        key = None
    if not path or key is None or set(kinds) - {"log", "int"}:
        raise UsageError(f"--range {text!r}: expected key=low:high, optionally followed by :log or :int")
    if not -math.inf < key.low < key.high < math.inf or (key.log and key.low <= 0):
        raise UsageError(f"--range {text!r}: low must be less than high, and greater than 0 with :log")
    return key


def _ends(key: Range) -> list[str]:
    return [str(int(end)) if key.integer else repr(end) for end in (key.low, key.high)]
