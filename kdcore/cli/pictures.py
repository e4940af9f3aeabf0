"""HTML pages with plots of recordings, written by a plugin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdcore.errors import UsageError

if TYPE_CHECKING:
    from kdcore.contracts.drawing import Drawing


def refuse_page_path(option: str, path: Path | None) -> None:
    """Check the output path of an HTML page before any data is read.

    Raises:
        UsageError: If the path does not end in ``.html`` or its folder does not exist.
    """
    if path and path.suffix != ".html":
        raise UsageError(f"{option} {path}: the file name must end in .html")
    if path and not path.parent.is_dir():
        raise UsageError(f"{option} {path}: folder {str(path.parent)!r} does not exist")


def write_drawings(title: str, drawings: Sequence[Drawing], path: Path) -> Path:
    """Write an HTML page with plots of recordings and return its path.

    Raises:
        UsageError: If no installed plugin implements the hook ``draw_recordings``.
    """
    from kdcore.plugin.manager import plugin_manager

    page = plugin_manager().hook.draw_recordings(title=title, drawings=drawings, path=path)
    if page is None:
        raise UsageError(f"{path}: no installed plugin can plot recordings; the plugin 'report', which comes with kdcore, does")
    return page
