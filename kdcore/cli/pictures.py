"""Pages of recordings, drawn by a plugin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdcore.errors import UsageError

if TYPE_CHECKING:
    from kdcore.contracts.drawing import Drawing


def refuse_path(option: str, path: Path | None) -> None:
    """Refuse the file of a page before anything is read.

    Raises:
        UsageError: If it does not end in ``.html``, or its folder does not exist.
    """
    if path and path.suffix != ".html":
        raise UsageError(f"{option} {path}: the page is written as .html")
    if path and not path.parent.is_dir():
        raise UsageError(f"{option} {path}: there is no folder {str(path.parent)!r}")


def draw(title: str, drawings: Sequence[Drawing], path: Path) -> Path:
    """Let a plugin write a page of recordings.

    Raises:
        UsageError: If no plugin draws.
    """
    from kdcore.plugin.manager import plugin_manager

    found = plugin_manager().hook.draw_recordings(title=title, drawings=drawings, path=path)
    if found is None:
        raise UsageError(f"{path}: no installed plugin draws recordings; kdcore's own is 'report'")
    return found
