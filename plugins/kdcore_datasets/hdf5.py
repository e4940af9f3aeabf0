"""Arrays in HDF5 files, read in blocks of rows."""

from __future__ import annotations

import mmap
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from kdcore import DataError, one_line, refuse_bomb

SUFFIXES = (".h5", ".hdf5", ".hdf")

BLOCK, KEPT = 1 << 20, 1 << 26
"""Bytes of rows that are read at once, at least one chunk of the file; bytes of rows kept in memory per array."""

COLLECTION = b"GCOL\1\0\0\0"
"""Signature of a global heap collection, which contains objects of variable size."""

SEARCHED = 1 << 32
"""Maximum file size in bytes that is searched for damaged collections."""

LISTED = 20
"""Maximum number of arrays listed in a message."""


class Hdf5Rows:
    """Rows of an array in an HDF5 file.

    The file is only open while rows are read, so that processes can share this object.

    Args:
        path: File.
        name: Path of the array in the file, such as ``train/X``.

    Raises:
        DataError: If h5py is not installed, the array does not exist, or it is rejected: because it is behind a link, its
            values are in other files or neither numbers nor text, or it decompresses to far more than the size of the file.
    """

    def __init__(self, path: Path, name: str):
        self.path, self.name = path, name
        with _opened(path, name) as found:
            refuse_bomb(path, found.size * max(found.dtype.itemsize, 1))
            self.shape: tuple[int, ...] = found.shape
            size = max(1, found.dtype.itemsize * int(np.prod(self.shape[1:])))
            chunk = found.chunks[0] if found.chunks else 1
            self._rows = chunk * max(1, BLOCK // (chunk * size))
        self._most = max(1, KEPT // (self._rows * size))
        self._blocks: OrderedDict[int, np.ndarray] = OrderedDict()

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, row: int) -> np.ndarray:
        """Return a row."""
        number, place = divmod(row, self._rows)
        if number not in self._blocks:
            with _opened(self.path, self.name) as found:
                self._blocks[number] = found[number * self._rows : (number + 1) * self._rows]
            if len(self._blocks) > self._most:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(number)
        return self._blocks[number][place]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all rows in memory."""
        with _opened(self.path, self.name) as found:
            return np.asarray(found[:], dtype=dtype)


def array_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the arrays in an HDF5 file by path, without arrays behind links.

    Raises:
        DataError: If h5py is not installed.
        OSError: If the file cannot be read.
    """
    h5py, found = _h5py(path), {}
    with h5py.File(path, "r") as file:
        file.visititems(lambda name, item: found.update({name: item.shape}) if isinstance(item, h5py.Dataset) else None)
    return found


def _h5py(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise DataError(f"{path}: reading HDF5 needs h5py: pip install 'kdcore[hdf5]'") from error
    return h5py


@contextmanager
def _opened(path: Path, name: str) -> Iterator[Any]:
    """Open an array of a file without following links.

    Raises:
        DataError: If it does not exist, is rejected, or cannot be read.
    """
    h5py = _h5py(path)
    try:
        with _array(path, name, h5py) as found:
            yield found
    except DataError:
        raise
    except Exception as error:  # h5py raises many types of exceptions for damaged files
        raise DataError(f"{path}: cannot be read as an array of windows ({one_line(error)})") from error


@contextmanager
def _array(path: Path, name: str, h5py: Any) -> Iterator[Any]:
    with h5py.File(path, "r") as file:
        found: Any = file
        for part in filter(None, name.split("/")):
            link = found.get(part, getlink=True) if isinstance(found, h5py.Group) else None
            if link is None:
                raise _unknown(path, name)
            if type(link) is not h5py.HardLink:
                raise DataError(f"{path}: refused: {part!r} in {name!r} is a link to another place; name the array itself")
            found = found[part]
        if not isinstance(found, h5py.Dataset):
            raise _unknown(path, name)
        _require_plain(path, name, found, h5py)
        yield found


def _require_plain(path: Path, name: str, found: Any, h5py: Any) -> None:
    if found.external or found.is_virtual:
        raise DataError(f"{path}: refused: the values of {name!r} are in other files")
    if not (found.dtype.kind in "fiubSU" or h5py.check_string_dtype(found.dtype)):
        raise DataError(f"{path}: refused: {name!r} holds neither numbers nor text but {found.dtype}")
    if not found.shape:
        raise DataError(f"{path}: {name!r} is a single value, not an array")
    text = h5py.check_string_dtype(found.dtype)
    if text and text.length is None:
        _refuse_damaged_text(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _refuse_damaged_text(path: Path, stamp: int) -> None:
    """Raise an error for damaged texts of variable length, which the HDF5 library would read in an endless loop.

    They are stored in collections of numbered objects with their sizes (HDF5 File Format Specification, III.E). The library
    fails if a size is wrong. Files larger than `SEARCHED` are not checked.

    Args:
        path: File.
        stamp: Modification time, so that a changed file is checked again.

    Raises:
        DataError: If a collection is damaged.
    """
    del stamp
    if not 0 < path.stat().st_size <= SEARCHED:
        return
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(COLLECTION)
        while start >= 0:
            if not _is_whole(content, start):
                raise DataError(f"{path}: damaged: its collection of texts at byte {start} is incomplete")
            start = content.find(COLLECTION, start + 1)


def _is_whole(content: mmap.mmap, start: int) -> bool:
    """Return whether the objects of the collection at `start` are contiguous up to its end. Sizes are 8-byte integers."""
    stop = start + int.from_bytes(content[start + 8 : start + 16], "little")
    place = start + 16
    if not place < stop <= len(content):
        return False
    while place + 16 <= stop:
        number, size = (int.from_bytes(content[place + at : place + at + n], "little") for at, n in ((0, 2), (8, 8)))
        step = 16 + (size + 7) // 8 * 8 if number else size  # object 0 is the free space, including its header
        if not 16 <= step <= stop - place:
            return False
        place += step
    return True


def _unknown(path: Path, name: str) -> DataError:
    known = list(array_shapes(path))
    more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
    what = f"has no array {name!r}" if name else "say which array after a colon"
    return DataError(f"{path}: {what}; it has {', '.join(known[:LISTED]) or 'none'}{more}")
