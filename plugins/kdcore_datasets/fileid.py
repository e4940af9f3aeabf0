"""The identity of a file's content."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kdcore import DataError


def digest(path: Path) -> str:
    """Hash of a file's content.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
