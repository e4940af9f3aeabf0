"""What users see when something is wrong: one class per kind of cause, each with its exit status."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class KdcoreError(Exception):
    """Anything a user can mend; the command line prints its text and no traceback."""

    exit_code = 1


class UsageError(KdcoreError):
    """A command given words that it cannot use; mistakes that typer finds exit with 2 too."""

    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a recipe.

    Args:
        path: Where in the recipe, e.g. ``losses[2].temprature``; empty for the recipe as a whole.
        message: What is wrong, in one sentence.
        file: The file that says so; None for a command-line override.
        line: Line in that file, counted from 1.
        hint: What to do instead, e.g. the nearest valid name.
    """

    path: str
    message: str
    file: Path | None = None
    line: int | None = None
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " if self.file and self.line else f"{self.file}: " if self.file else ""
        path = f"{self.path}: " if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}{path}{self.message}{hint}"


class KdcoreDeprecationWarning(FutureWarning):
    """Something is used that a coming release of kdcore, or of a plugin, will no longer have."""


class RecipeError(KdcoreError):
    """A recipe that cannot be run, with every problem found in it."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]):
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class PluginError(KdcoreError):
    """A plugin that is broken, missing, or in conflict with another."""

    exit_code = 2


class ComponentError(PluginError):
    """A component that could not be constructed with its options, or that failed when it was asked something."""


class UnknownComponentError(PluginError):
    """A name that no installed plugin provides."""


class DataError(KdcoreError):
    """A file or folder of recordings that cannot be used, named with the reason."""

    exit_code = 2


class ListingError(DataError):
    """Recordings that cannot be found, or are not laid out as their dataset expects."""


class SplitError(DataError):
    """Recordings that cannot be divided as the recipe asks."""


class CheckpointError(KdcoreError):
    """A checkpoint or saved student that is missing, damaged or unsafe to load."""

    exit_code = 2


class UnknownRunError(CheckpointError):
    """No run is called that."""


class TrainingError(KdcoreError):
    """Training that cannot go on: a loss that is not finite, a disk that is full."""


class StoppedError(KdcoreError):
    """A run stopped on request after saving its state."""

    exit_code = 143


def one_line(error: BaseException) -> str:
    """What an error says, without line breaks and not much longer than a person reads."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 400 else text[:399] + "…"


def reason(error: BaseException) -> str:
    """Return an exception's text, after its class where the class says more than that a value is wrong."""
    kind, said = type(error).__name__, str(error)
    return said or kind if isinstance(error, KdcoreError | ValueError) else f"{kind}: {said}"
