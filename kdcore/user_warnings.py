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
"""Packages whose frames may lie between kdcore's and those of its user."""

_Found = dict[str, tuple[str, type[Warning], int]]
"""Kind of warning → the first message, its category, and how often it came."""

_collected: ContextVar[_Found | None] = ContextVar("collected", default=None)


def warn(message: str, category: type[Warning] = UserWarning, kind: str = "") -> None:
    """Warn at the innermost line that is neither kdcore's, nor of a plugin that comes with it, nor of a library that it uses.

    Args:
        message: What to say.
        category: Class of the warning.
        kind: What warnings have in common that `counted` gives once; by default the message.
    """
    found = _collected.get()
    if found is None:
        frame = _users_frame()
        name, registry = frame.f_globals.get("__name__", "sys"), frame.f_globals.setdefault("__warningregistry__", {})
        warnings.warn_explicit(message, category, frame.f_code.co_filename, frame.f_lineno, name, registry)
        return
    first, _, count = found.get(kind or message, (message, category, 0))
    found[kind or message] = (first, category, count + 1)


@contextmanager
def counted(things: str) -> Iterator[None]:
    """Give each kind of warning that comes within this context once, when it ends, with how often it came.

    Args:
        things: What one warning is about, in the plural, such as ``recordings``.
    """
    found: _Found = {}
    token = _collected.set(found)
    try:
        yield
    finally:
        _collected.reset(token)
        for message, category, count in found.values():
            warn(f"{message} ({count} {things})" if count > 1 else message, category)


def _users_frame() -> FrameType:
    """The innermost frame of the user's; the outermost one if there is none."""
    frame = inspect.currentframe()
    assert frame is not None
    while frame.f_back is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if not (package == "kdcore" or package.startswith("kdcore_") or package in _LIBRARIES):
            break
        frame = frame.f_back
    return frame
