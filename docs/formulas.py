"""Converts formulas to MathML when the site is built, so that they need neither a script nor the network."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

_ALIASES = {r"\arg\max": r"\operatorname{argmax}", r"\arg\min": r"\operatorname{argmin}"}
"""Commands that the converter does not know → what it knows."""

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\(?P<open>[(\[])(?P<latex>.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Replace the formulas of a page."""
    if unread := re.search(r"<p>(\.\. math::|[^<]*:math:)[^<]{0,80}", html):
        raise PluginError(f"{page.file.src_uri}: a formula was not recognised: {unread[0]}")

    def converted(found: re.Match[str]) -> str:
        latex = unescape(found["latex"]).strip()
        try:
            return mathml(latex, block=found["open"] == "[")
        except Exception as error:
            raise PluginError(f"{page.file.src_uri}: could not convert the formula {latex!r}: {error}") from error

    return _FORMULA.sub(converted, html)


def mathml(latex: str, block: bool) -> str:
    """Return a formula as MathML.

    Raises:
        ValueError: If it has a command that the converter does not know, which it would print as text.
    """
    for command, known in _ALIASES.items():
        latex = latex.replace(command, known)
    made = convert(latex, display="block" if block else "inline")
    if unknown := re.search(r"\\[a-zA-Z]+", made):
        raise ValueError(f"unknown command {unknown[0]}")
    return made
