"""Shapes of the arrays in files of windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from kdcore import refuse_bomb
from kdcore_datasets import hdf5
from kdcore_datasets.arrow_files import parquet_shapes, row_shape, saved_dataset_columns, saved_dataset_rows
from kdcore_datasets.ts_files import read_ts

_SUFFIXES = (".npz", ".npy", ".ts", ".parquet", *hdf5.SUFFIXES)
_MOST = 200
"""Files and folders that are opened."""


def array_shapes(root: Path, files: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Array, as a recipe names it → its shape. Files that cannot be read are left out.

    Args:
        root: Folder of the files.
        files: Their names below it, with forward slashes; those of Hugging Face folders among them.
    """
    folders = [file.rpartition("/")[0] or "." for file in files if file.rpartition("/")[2] == "state.json"]
    found: dict[str, tuple[int, ...]] = {}
    for name in [*folders, *(file for file in files if file.endswith(_SUFFIXES))][:_MOST]:
        try:
            found |= _of_file(root / name, name)
        except Exception:  # whatever is wrong with it: it is not used
            continue
    return found


def _of_file(path: Path, name: str) -> dict[str, tuple[int, ...]]:
    if path.suffix == ".npy":
        return {name: np.load(path, mmap_mode="r", allow_pickle=False).shape}
    return {f"{name}:{inside}": shape for inside, shape in _inside(path)}


def _inside(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Each array in a file or folder, and its shape."""
    if path.is_dir():
        for name in saved_dataset_columns(path):
            rows = saved_dataset_rows(path, name)
            yield name, (len(rows), *row_shape(rows))
    elif path.suffix in hdf5.SUFFIXES:
        yield from hdf5.array_shapes(path).items()
    elif path.suffix == ".parquet":
        yield from parquet_shapes(path).items()
    elif path.suffix == ".ts":
        yield from ((name, (len(rows), *row_shape(rows))) for name, rows in read_ts(path, 0).items())
    else:
        refuse_bomb(path)
        with np.load(path, allow_pickle=False) as loaded:
            yield from ((name, loaded[name].shape) for name in loaded.files)
