"""Lets the API pages show ``.. math::`` and ``:math:`` of docstrings as formulas."""

from __future__ import annotations

import re
from typing import Any

import griffe

_BLOCK = re.compile(r"^\.\. math::\s*(.+(?:\n[ ]+.+)*)", re.MULTILINE)
_INLINE = re.compile(r":math:`([^`]+)`")


class MathInDocstrings(griffe.Extension):
    """Rewrites the docstring of everything collected."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called once for each module, class, function and attribute."""
        if obj.docstring:
            text = _BLOCK.sub(lambda found: f"$$\n{found[1]}\n$$", obj.docstring.value)
            obj.docstring.value = _INLINE.sub(lambda found: f"\\({found[1]}\\)", text)
