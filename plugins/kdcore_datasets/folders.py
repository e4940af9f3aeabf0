"""Listing of folders with recordings, with errors that name the folder."""

from __future__ import annotations

from pathlib import Path

from kdcore import DataError


def existing_folder(root: Path) -> Path:
    """Return `root` with ``~`` expanded.

    Raises:
        DataError: If it does not exist or is not a folder.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        what = "not a folder" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {what}; set `root` to the folder of the recordings")
    return folder


def existing_file(path: Path) -> Path:
    """Return `path` with ``~`` expanded.

    Raises:
        DataError: If it does not exist or is a folder.
    """
    file = path.expanduser()
    if not file.is_file():
        raise DataError(f"{file}: {'is a folder' if file.is_dir() else 'no such file'}")
    return file


def entries(folder: Path) -> list[Path]:
    """Return the entries of `folder`, sorted by name.

    Raises:
        DataError: If the folder cannot be read.
    """
    try:
        return sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror or error})") from error


def refuse_folder(error: OSError) -> None:
    """Error handler for `os.walk`, so that unreadable folders are not skipped silently.

    Raises:
        DataError: Always.
    """
    raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error


def subfolder(root: Path, name: str) -> Path | None:
    """Return the subfolder `name` of `root`, ignoring case, or None if there is none."""
    found = [each for each in entries(root) if each.name.lower() == name.lower() and each.is_dir()]
    exact = [each for each in found if each.name == name]
    return (exact or found or [None])[0]
