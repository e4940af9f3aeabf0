"""A new SQLite database for MLflow: there as a whole or not at all.

MLflow makes its tables one by one, in place. Killed meanwhile, or done by two processes at once, that leaves a database which
cannot be used any more.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

SQLITE = "sqlite:///"


def database_file(uri: str) -> Path | None:
    """The file of a tracking URI that is one."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def ensure_database(uri: str, make: Callable[[str], object]) -> None:
    """Have a database made beside its place and put there in one step, unless there is one, or `uri` is no file's.

    Args:
        uri: Of the database.
        make: Makes all tables of the one whose URI it is given.
    """
    path = database_file(uri)
    if path is None or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex}.new")
    try:
        make(f"{SQLITE}{new}")
        with suppress(FileExistsError):  # somebody was quicker, and theirs is as good
            os.link(new, path)
    finally:
        new.unlink(missing_ok=True)
