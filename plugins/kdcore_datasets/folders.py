"""Listing folders of recordings, with errors that name the folder."""

from __future__ import annotations

from pathlib import Path

from kdcore import DataError


def existing_folder(root: Path) -> Path:
    """`root` with ``~`` expanded.

    Raises:
        DataError: If it is missing or no folder.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        what = "not a folder" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {what}; set `root` to the folder of the recordings")
    return folder


def existing_file(path: Path) -> Path:
    """`path` with ``~`` expanded.

    Raises:
        DataError: If it is missing or a folder.
    """
    file = path.expanduser()
    if not file.is_file():
        raise DataError(f"{file}: {'is a folder' if file.is_dir() else 'no such file'}")
    return file


def entries(folder: Path) -> list[Path]:
    """The entries of `folder`, sorted by name.

    Raises:
        DataError: If the folder cannot be read.
    """
    try:
        return sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror or error})") from error


def refuse_folder(error: OSError) -> None:
    """For `os.walk`: a folder that cannot be read is not passed over.

    Raises:
        DataError: Always.
    """
    raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error


def subfolder(root: Path, name: str) -> Path | None:
    """The folder `name` in `root`, whatever its case; None if there is none."""
    found = [each for each in entries(root) if each.name.lower() == name.lower() and each.is_dir()]
    exact = [each for each in found if each.name == name]
    return (exact or found or [None])[0]
