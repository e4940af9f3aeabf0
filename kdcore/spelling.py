"""Names that nobody knows, and what may have been meant."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name most like `name`; empty if none is like it."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, list(known), n=1)), "")


def did_you_mean(name: str, known: Iterable[str], what: str = "known") -> str:
    """A hint: the nearest of the known names, else all of them."""
    known = list(known)
    near = nearest(name, known)
    return f"did you mean {near!r}?" if near else f"{what}: {', '.join(known) or 'none'}"


def or_meant(name: str, known: Iterable[str]) -> str:
    """The end of a message where a known name is near, ``; did you mean 'x'?``; else nothing."""
    near = nearest(name, known)
    return f"; did you mean {near!r}?" if near else ""
