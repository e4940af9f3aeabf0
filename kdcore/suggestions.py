"""Suggestions for misspelt names."""

from __future__ import annotations

from collections.abc import Iterable

MANY, FEW, LENGTH = 20, 4, 80
"""If there are more than `MANY` names, only `FEW` are shown, and of each name `LENGTH` characters."""


SIMILAR = 0.6
"""Similarity from which on a name may be meant."""


def nearest(name: str, known: Iterable[str], least: float = SIMILAR) -> str:
    """Return the known name most similar to `name`; empty if none has at least the similarity `least`, between 0 and 1."""
    return next(iter(_most_like(name, known, 1, least)), "")


def did_you_mean(name: str, known: Iterable[str], what: str = "known") -> str:
    """Return a hint: the nearest known name, else all of them; of many names, the most similar."""
    known = list(known)
    shown = [each if len(each) <= LENGTH else f"{each[:LENGTH]}…" for each in known]
    if near := nearest(name, known):
        return f"did you mean {near!r}?"
    if len(known) > MANY:
        return f"{what}: {', '.join(_most_like(name, shown, FEW, 0.0))} and {len(known) - FEW} more"
    return f"{what}: {', '.join(shown) or 'none'}"


def or_meant(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?``, the end of a message, if a known name is similar; else nothing."""
    near = nearest(name, known)
    return f"; did you mean {near!r}?" if near else ""


def _most_like(name: str, known: Iterable[str], count: int, least: float = SIMILAR) -> list[str]:
    from difflib import get_close_matches

    known = list(known)
    lowered = dict(zip(map(str.casefold, known), known, strict=True))
    return [lowered[each] for each in get_close_matches(name.casefold(), lowered, n=count, cutoff=least)]
