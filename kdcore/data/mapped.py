"""Memory-mapped tensors: existing files, temporary files for large results, and prefetching of rows."""

from __future__ import annotations

import errno
import math
import mmap
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from kdcore.errors import DataError

ROWS = 1024
"""Number of rows that are copied at a time."""

_FILES = WeakTensorKeyDictionary()
"""Tensor → the `mmap.mmap` of its memory, and the address of that; entries vanish with their tensors."""


def opened(path: Path, shape: Sequence[int], dtype: np.dtype) -> Tensor:
    """Return the values of a file as a memory-mapped tensor; changes of the tensor do not reach the file."""
    array = np.memmap(path, dtype, "c", shape=tuple(shape))  # copy-on-write: torch requires a writable array
    return _registered(torch.from_numpy(array), array)


@dataclass(frozen=True)
class Storage:
    """Storage of new tensors: in memory up to a limit, and in temporary files if they are larger.

    Args:
        limit: Largest tensor in memory, in bytes.
        folder: Folder of the files; the system's folder for temporary files by default.
    """

    limit: int = sys.maxsize
    folder: Path | None = None

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return an uninitialised tensor.

        Raises:
            DataError: If the disk is full, or the file cannot be created.
        """
        size = math.prod(shape) * dtype.itemsize
        if size <= self.limit:
            return torch.empty(tuple(shape), dtype=dtype)
        try:
            with TemporaryFile(dir=self.folder) as file:
                if hasattr(os, "posix_fallocate"):  # without it, a full disk kills the process that writes to the mapping
                    os.posix_fallocate(file.fileno(), 0, size)
                array = np.memmap(file, np.uint8, "w+", shape=(size,))
        except OSError as error:
            where = self.folder or "the folder of temporary files"
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise DataError(f"no room for {size / 1e9:.1f} GB of data in {where}: {error.strerror}") from error
            raise DataError(f"cannot create a temporary file of {size / 1e9:.1f} GB in {where}: {error}") from error
        return _registered(torch.from_numpy(array).view(dtype).view(tuple(shape)), array)

    def rows(self, x: Tensor, rows: Tensor) -> Tensor:
        """Return ``x[rows]``; if it is larger than `limit`, as a view of consecutive rows, or else as a tensor on disk.

        Args:
            x: (N, …).
            rows: (M,) int64.
        """
        size = math.prod(x.shape[1:]) * len(rows) * x.element_size()
        if size <= self.limit:
            return x[rows]
        first = int(rows[0])
        if torch.equal(rows, torch.arange(first, first + len(rows))):
            part = x[first : first + len(rows)]
            if x in _FILES:
                _FILES[part] = _FILES[x]
            return part
        result = self.empty((len(rows), *x.shape[1:]), x.dtype)
        for start in range(0, len(rows), ROWS):
            torch.index_select(x, 0, rows[start : start + ROWS], out=result[start : start + ROWS])
        return result


def read_ahead(x: Tensor, rows: Tensor) -> None:
    """Prefetch rows of a memory-mapped tensor together; does nothing for a tensor in memory.

    Without it, the system reads one row after the other, with its neighbours.
    """
    if not len(_FILES) or x not in _FILES or not hasattr(mmap, "MADV_WILLNEED"):
        return
    file, address = _FILES[x]
    size, page = x.stride(0) * x.element_size(), mmap.PAGESIZE
    for start in (x.data_ptr() - address + rows * size).tolist():
        first = start // page * page
        file.madvise(mmap.MADV_WILLNEED, first, min(start + size, len(file)) - first)


def _registered(x: Tensor, array: np.memmap) -> Tensor:
    _FILES[x] = array._mmap, array.ctypes.data  # type: ignore[attr-defined]  # NumPy has no public name for it
    return x
