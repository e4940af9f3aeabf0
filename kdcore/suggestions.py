"""Names that nobody knows, and what may have been meant."""

from __future__ import annotations

from collections.abc import Iterable

MANY, FEW = 20, 4
"""Of more than so many names, only so few are shown."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name most like `name`; empty if none is like it."""
    return next(iter(_most_like(name, known, 1)), "")


def did_you_mean(name: str, known: Iterable[str], what: str = "known") -> str:
    """A hint: the nearest of the known names, else all of them; where they are many, those most like it."""
    known = list(known)
    if near := nearest(name, known):
        return f"did you mean {near!r}?"
    if len(known) > MANY:
        return f"{what}: {', '.join(_most_like(name, known, FEW, 0.0))} and {len(known) - FEW} more"
    return f"{what}: {', '.join(known) or 'none'}"


def or_meant(name: str, known: Iterable[str]) -> str:
    """The end of a message where a known name is near, ``; did you mean 'x'?``; else nothing."""
    near = nearest(name, known)
    return f"; did you mean {near!r}?" if near else ""


def _most_like(name: str, known: Iterable[str], count: int, least: float = 0.6) -> list[str]:
    from difflib import get_close_matches

    return get_close_matches(name, list(known), n=count, cutoff=least)
