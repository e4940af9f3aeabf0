"""Removal of reStructuredText markup, for terminals."""

from __future__ import annotations

import re


def plain(text: str) -> str:
    """Return a docstring without the markup of formulas and code; formulas remain in LaTeX."""
    text = re.sub(r"^\.\. math::\s*", "    ", text, flags=re.MULTILINE)
    return re.sub(r":math:`([^`]*)`", r"\1", text).replace("``", "`")
