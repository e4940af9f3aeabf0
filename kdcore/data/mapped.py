"""Tensors on disk that are used like tensors in memory: large ones without a name, and rows read ahead of their use."""

from __future__ import annotations

import errno
import math
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from kdcore.errors import DataError

ROWS = 1024
"""Rows that are copied at a time."""

_FILES = WeakTensorKeyDictionary()
"""Tensor → the `mmap.mmap` that its memory is, and the address at which that begins; both end with the tensor."""


def opened(path: Path, shape: Sequence[int], dtype: np.dtype) -> Tensor:
    """A file's values as a tensor that is read from disk where it is used; what is written to it stays in memory."""
    array = np.memmap(path, dtype, "c", shape=tuple(shape))  # copy-on-write: torch asks for a writable array
    return _known(torch.from_numpy(array), array)


def empty(shape: Sequence[int], dtype: torch.dtype, limit: int, folder: Path | None = None) -> Tensor:
    """An uninitialised tensor: in memory up to `limit` bytes, else in a file that ends with it.

    Args:
        shape: Its shape.
        dtype: Its type.
        limit: Bytes that it may take in memory.
        folder: Where the file is; the system's folder of temporary files by default.

    Raises:
        DataError: If the disk has no room for the file, or it cannot be created.
    """
    size = math.prod(shape) * dtype.itemsize
    if size <= limit:
        return torch.empty(tuple(shape), dtype=dtype)
    try:
        with TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # else a full disk kills the process that writes to the mapping
                os.posix_fallocate(file.fileno(), 0, size)
            array = np.memmap(file, np.uint8, "w+", shape=(size,))
    except OSError as error:
        where = folder or "the folder of temporary files"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DataError(f"no room for {size / 1e9:.1f} GB of data in {where}: {error.strerror}") from error
        raise DataError(f"cannot create a temporary file of {size / 1e9:.1f} GB in {where}: {error}") from error
    return _known(torch.from_numpy(array).view(dtype).view(tuple(shape)), array)


def rows_of(x: Tensor, rows: Tensor, limit: int, folder: Path | None = None) -> Tensor:
    """``x[rows]``; if it takes more than `limit` bytes, a view where rows follow one another, else a tensor on disk.

    Args:
        x: (N, …).
        rows: (M,) int64.
        limit: Bytes that the result may take in memory.
        folder: Where its file is, see `empty`.
    """
    size = math.prod(x.shape[1:]) * len(rows) * x.element_size()
    if size <= limit:
        return x[rows]
    first = int(rows[0])
    if torch.equal(rows, torch.arange(first, first + len(rows))):
        part = x[first : first + len(rows)]
        if x in _FILES:
            _FILES[part] = _FILES[x]
        return part
    found = empty((len(rows), *x.shape[1:]), x.dtype, limit, folder)
    for start in range(0, len(rows), ROWS):
        torch.index_select(x, 0, rows[start : start + ROWS], out=found[start : start + ROWS])
    return found


def read_ahead(x: Tensor, rows: Tensor) -> None:
    """Have the system read rows of a tensor on disk all at once; nothing for one in memory.

    Without it each row is waited for in turn, and the system reads what lies around it.
    """
    if not len(_FILES) or x not in _FILES or not hasattr(mmap, "MADV_WILLNEED"):
        return
    file, address = _FILES[x]
    size, page = x.stride(0) * x.element_size(), mmap.PAGESIZE
    for start in (x.data_ptr() - address + rows * size).tolist():
        first = start // page * page
        file.madvise(mmap.MADV_WILLNEED, first, min(start + size, len(file)) - first)


def _known(x: Tensor, array: np.memmap) -> Tensor:
    _FILES[x] = array._mmap, array.ctypes.data  # type: ignore[attr-defined]  # NumPy has no public name for it
    return x
