"""The words of a class name."""

from __future__ import annotations

import re

# GloVe's own tokenizer keeps a possessive 's apart.
_WORD = re.compile(r"'s\b|[^\W_]+")


def words_of(name: str) -> list[str]:
    """The words of `name` in order; spaces, underscores, hyphens and other signs separate them."""
    return _WORD.findall(name)
