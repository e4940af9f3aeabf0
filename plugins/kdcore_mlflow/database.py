"""Atomic creation of a new SQLite database for MLflow.

MLflow creates its tables one by one. If it is killed meanwhile, or two processes do so at once, the database is unusable.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

SQLITE = "sqlite:///"


def database_file(uri: str) -> Path | None:
    """Return the file of a tracking URI, or None if it is not a file."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def ensure_database(uri: str, make: Callable[[str], object]) -> None:
    """Create a database in a temporary file and move it into place, unless it exists or `uri` is not a file.

    Args:
        uri: URI of the database.
        make: Creates all tables of the database with the given URI.
    """
    path = database_file(uri)
    if path is None or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex}.new")
    try:
        make(f"{SQLITE}{new}")
        with suppress(FileExistsError):  # another process was faster; its database is equivalent
            os.link(new, path)
    finally:
        new.unlink(missing_ok=True)
