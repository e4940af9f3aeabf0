"""Warnings that point at the line of the user's code from which kdcore was called."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType

_LIBRARIES = {"lightning", "lightning_fabric", "pandas", "pluggy", "pydantic", "torch", "typer", *sys.stdlib_module_names}
"""Packages whose frames may be between those of kdcore and the user's."""

_Counts = dict[str, tuple[str, type[Warning], list[str]]]
"""Kind of warning → the first message, its category, and what each occurrence is about, empty if unknown."""

_collected: ContextVar[_Counts | None] = ContextVar("collected", default=None)
_about: ContextVar[str] = ContextVar("about", default="")
_SHOWN = 3


def warn(message: str, category: type[Warning] = UserWarning, kind: str = "") -> None:
    """Warn at the innermost line of code that is not part of kdcore, of a shipped plugin, or of a library that kdcore uses.

    Args:
        message: The message.
        category: Class of the warning.
        kind: Kind of the warning, which `counted` reports once; by default the message.
    """
    counts = _collected.get()
    if counts is None:
        message = f"{_about.get()}: {message}" if _about.get() else message
        frame = _users_frame()
        name, registry = frame.f_globals.get("__name__", "sys"), frame.f_globals.setdefault("__warningregistry__", {})
        warnings.warn_explicit(message, category, frame.f_code.co_filename, frame.f_lineno, name, registry)
        return
    kind = kind or message
    counts.setdefault(kind, (message, category, []))[2].append(_about.get())


@contextmanager
def warnings_about(name: str) -> Iterator[None]:
    """Name what warnings in this context are about, such as a file."""
    token = _about.set(name)
    try:
        yield
    finally:
        _about.reset(token)


@contextmanager
def counted(items: str) -> Iterator[None]:
    """Collect the warnings in this context, and report each kind once at its end, with names or the number of occurrences.

    Args:
        items: Plural noun for the counted objects, such as ``recordings``.
    """
    counts: _Counts = {}
    token = _collected.set(counts)
    try:
        yield
    finally:
        _collected.reset(token)
        for message, category, subjects in counts.values():
            names = list(dict.fromkeys(filter(None, subjects)))
            if names and not _about.get():
                rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
                message = f"{', '.join(names[:_SHOWN])}{rest}: {message}"
            elif len(subjects) > 1:
                message = f"{message} ({len(subjects)} {items})"
            warn(message, category)


def _users_frame() -> FrameType:
    """Return the innermost frame of the user's code, or the outermost frame if there is none."""
    frame = inspect.currentframe()
    assert frame is not None
    while frame.f_back is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if not (package == "kdcore" or package.startswith("kdcore_") or package in _LIBRARIES):
            break
        frame = frame.f_back
    return frame
