"""Readers for files whose rows are windows, labels or subjects, by suffix."""

from __future__ import annotations

import lzma
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np

from kdcore import DataError, refuse_bomb
from kdcore_datasets import hdf5
from kdcore_datasets.arrow_files import ArrowRows, is_saved_dataset, named, parquet_rows, saved_dataset_rows
from kdcore_datasets.delimited import open_text
from kdcore_datasets.folders import existing_file
from kdcore_datasets.ts_files import NAMES, read_ts

Rows = np.ndarray | ArrowRows | hdf5.Hdf5Rows
"""Rows with a length, a shape, and access by index. ``numpy.asarray`` reads all of them."""

_HOLDS_SEVERAL = (".npz", ".parquet", ".ts", *hdf5.SUFFIXES)


def located(root: Path, text: str) -> tuple[Path, str]:
    """Return the file or folder that a text names, and the name of the array in it, or an empty string.

    Args:
        root: Folder that contains it.
        text: Path, optionally followed by a colon and the name of an array.

    Raises:
        DataError: If the file does not exist.
    """
    path, colon, name = text.rpartition(":")
    if colon and is_saved_dataset(root / path):
        return root / path, name
    if is_saved_dataset(root / text):
        return root / text, ""
    inside = colon and Path(path).suffix in _HOLDS_SEVERAL
    return existing_file(root / (path if inside else text)), name if inside else ""


def load_rows(path: Path, name: str) -> Rows:
    """Load an array from a file, with one row per window.

    Raises:
        DataError: If the file cannot be read, or does not contain the array.
    """
    try:
        stamp = (path / "state.json" if path.is_dir() else path).stat().st_mtime_ns
        return _loaded(path, name, stamp)
    except DataError:
        raise
    except (OSError, ValueError, KeyError, EOFError, TypeError, RuntimeError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path}: cannot be read as an array of windows ({error})") from error


@lru_cache(maxsize=64)
def _loaded(path: Path, name: str, stamp: int) -> Rows:
    """Implement `load_rows`. `stamp` is the modification time, so that a changed file is read again."""
    if path.is_dir():
        return saved_dataset_rows(path, name)
    if path.suffix == ".npy":
        return np.load(path, mmap_mode="r", allow_pickle=False)
    if path.suffix == ".npz":
        refuse_bomb(path)
        with np.load(path, allow_pickle=False) as file:
            return file[named(path, name, file.files)]
    if path.suffix == ".parquet":
        return parquet_rows(path, name)
    if path.suffix in hdf5.SUFFIXES:
        return hdf5.Hdf5Rows(path, name)
    if path.suffix == ".ts":
        found = read_ts(path, stamp)
        if name == "labels" and name not in found:
            raise DataError(f"{path}: its cases have no class labels (@classLabel false)")
        return found[named(path, name, NAMES)]
    return _text_rows(path)


def _text_rows(path: Path) -> np.ndarray:
    with open_text(path) as file:
        rows = [line.replace(",", " ").split() for line in file if line.strip()]
    if not rows:
        raise DataError(f"{path}: has no rows")
    if len({len(row) for row in rows}) > 1:
        raise DataError(f"{path}: its rows have from {min(map(len, rows))} to {max(map(len, rows))} values")
    try:
        return np.array(rows, dtype=np.float64)
    except ValueError:
        return np.array(rows)
