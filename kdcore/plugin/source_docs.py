"""First lines of docstrings, read from source files without importing them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from kdcore.plugin.docstring import plain


def first_line(target: str) -> str:
    """Return the first line of the docstring of ``module:Object``, a class or function; empty if it is not found.

    Imports nothing, because components import slow modules such as torch.
    """
    module, _, name = target.partition(":")
    signature = rf"^(?:class|def) {re.escape(name)}\b(?:[^\n]*|[^\n]*\(\n(?:    [^\n]*\n)*\)[^\n]*):\n"
    for file in _files(module):
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, ValueError):
            continue
        match = re.search(rf'{signature} +r?"""([^\n]*)', text, re.MULTILINE)
        return plain(match[1].partition('"""')[0]).strip() if match else ""
    return ""


def _files(module: str) -> Iterator[Path]:
    """Yield the files that may contain a module, whose package or itself has been imported."""
    top, *rest = module.split(".")
    package = sys.modules.get(top)
    if not rest and (file := getattr(package, "__file__", None)):
        yield Path(file)
    for folder in getattr(package, "__path__", ()) if rest else ():
        path = Path(folder, *rest)
        yield path.with_name(f"{path.name}.py")
        yield path / "__init__.py"
