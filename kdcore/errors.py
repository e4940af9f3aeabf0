"""Exceptions that users can see: a class per kind of cause, each with its exit status."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SHOWN = 20
"""Problems of a recipe that are shown in full."""

VALUE = 80
"""Characters of a value that a message about a recipe shows."""

TAIL = 30
"""Characters of them that are its end."""

_MESSAGE = 1000
_QUOTED = re.compile(r"(?<!\w)('[^']*'|\"[^\"]*\")")
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_STEP = re.compile(r"[^.\[\]]+")


class KdcoreError(Exception):
    """An error that the user can fix. The command line prints its text without a traceback."""

    exit_code = 1


class UsageError(KdcoreError):
    """Wrong usage of a command. Mistakes that typer finds exit with 2 too."""

    exit_code = 2


COMMAND_LINE = "command line"
"""Source of a problem in an override."""


@dataclass(frozen=True)
class Problem:
    """A single problem of a recipe.

    Args:
        path: Position in the recipe, e.g. ``losses[2].temprature``; empty for the recipe as a whole.
        message: The problem, in one sentence.
        file: The file that contains it; None for a command-line override.
        line: Line in that file, counted from 1.
        hint: Advice, e.g. the nearest valid name.
        source: Origin of a value that is in no file, e.g. ``command line``; empty if unknown.
    """

    path: str
    message: str
    file: Path | None = None
    line: int | None = None
    hint: str = ""
    source: str = ""

    def __str__(self) -> str:
        origin = str(self.file) if self.file else self.source
        where = f"{origin}:{self.line}: " if self.file and self.line else f"{origin}: " if origin else ""
        path = f"{_STEP.sub(_shortened, self.path)}: " if self.path else ""
        hint = f" ({_brief(self.hint)})" if self.hint else ""
        return f"{where}{path}{_brief(self.message)}{hint}"


def type_name(value: object) -> str:
    """The name of a class that was passed instead of an instance, or of a value's class, for messages."""
    return (value if isinstance(value, type) else type(value)).__name__


def _brief(text: str) -> str:
    """`text` with long quoted values shortened."""
    text = _QUOTED.sub(_shortened, text)
    return text if len(text) <= _MESSAGE else f"{text[: _MESSAGE - 1]}…"


def _shortened(match: re.Match[str]) -> str:
    value = match[0]
    if len(value) <= VALUE + 2:
        return value
    end = value[-TAIL:] if value[0] in "'\"" and value[-1] == value[0] else ""  # of a path, the file's name
    return f"{value[: VALUE - len(end)]}…{end}"


class KdcoreDeprecationWarning(FutureWarning):
    """A warning about something that a coming release of kdcore, or of a plugin, will no longer have."""


class RecipeError(KdcoreError):
    """A recipe that cannot be run, with every problem found in it; the text has the first `SHOWN` of them."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]):
        self.problems = tuple(problems)
        left = len(self.problems) - SHOWN
        more = [f"… and {left} more problem{'s' if left > 1 else ''}"] if left > 0 else []
        super().__init__("\n".join([*map(str, self.problems[:SHOWN]), *more]))


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
    """Recordings that cannot be split as the recipe asks."""


class CheckpointError(KdcoreError):
    """A checkpoint or saved student that is missing, damaged or unsafe to load."""

    exit_code = 2


class UnknownRunError(CheckpointError):
    """A run that does not exist."""


class TrainingError(KdcoreError):
    """Training that cannot continue: a loss that is not finite, a disk that is full."""


class StoppedError(KdcoreError):
    """A run stopped on request after saving its state."""

    exit_code = 143


def printable(text: str) -> str:
    """Return `text` for a terminal: characters that would move the cursor, change colours or reorder text are spelled out.

    Names of classes, files and samples come from files that somebody else wrote.
    """
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def one_line(error: BaseException) -> str:
    """Return the text of an error without line breaks, in at most 400 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 400 else text[:399] + "…"


def reason(error: BaseException) -> str:
    """Return an exception's text, after its class where the class says more than that a value is wrong."""
    kind, text = type(error).__name__, str(error)
    return text or kind if isinstance(error, KdcoreError | ValueError) else f"{kind}: {text}"
