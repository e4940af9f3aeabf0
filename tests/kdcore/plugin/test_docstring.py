"""Type hints as text for readers of recipes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Optional

import pytest
from annotated_types import Ge, Gt

from kdcore.plugin.docstring import hint_text, joined_lines


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (float, "float"),
        (Annotated[float, Gt(0)] | None, "float > 0 | None"),
        (Annotated[int, Ge(1)], "int ≥ 1"),
        (Optional[Annotated[dict[str, str] | None, "a mark"]], "dict[str, str] | None"),  # noqa: UP045
        (dict[str, float | None] | None, "dict[str, float | None] | None"),
        (list[int | str] | dict[str, int | str], "list[int | str] | dict[str, int | str]"),
        (Literal["last", "best"], "'last' | 'best'"),
        (tuple[str | int, ...], "tuple[str | int, …]"),
        (Any, "Any"),
    ],
    ids=str,
)
def test_hint_as_text(hint, text):
    assert hint_text(hint) == text


def test_paragraphs_become_lines_and_the_rest_is_kept():
    text = """A loss
of two lines.

.. math::

    a = b \\\\
    c = d

- one item
- another

Raises:
    ValueError: If
        it fails."""
    assert joined_lines(text) == text.replace("A loss\nof", "A loss of")
