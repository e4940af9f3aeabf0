"""Columns of the files of a device, be they delimited text or Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kdcore_datasets import delimited, parquet_tables
from kdcore_datasets.delimited import Column, TextLayout
from kdcore_datasets.parquet_tables import is_parquet


def read_numbers(path: Path, columns: Sequence[Column], layout: TextLayout, rows: slice | None = None) -> np.ndarray:
    """Columns of finite numbers, as (rows, columns) float64; of `rows` only, where these are given.

    Raises:
        DataError: If the file cannot be read, lacks a column, or a value is not a finite number.
    """
    if is_parquet(path):
        return parquet_tables.read_numbers(path, columns, rows)
    return delimited.read_numbers(path, columns, layout, rows)


def read_gappy(path: Path, columns: Sequence[Column], layout: TextLayout) -> np.ndarray:
    """Columns of numbers, (rows, columns) float64, NaN where a value is missing or no number.

    Raises:
        DataError: If the file cannot be read, or lacks a column.
    """
    return parquet_tables.read_gappy(path, columns) if is_parquet(path) else delimited.read_gappy(path, columns, layout)


def read_texts(path: Path, columns: Sequence[Column], layout: TextLayout) -> np.ndarray:
    """Columns of text, (rows, columns); empty where a value is missing.

    Raises:
        DataError: If the file cannot be read, or lacks a column.
    """
    return parquet_tables.read_texts(path, columns) if is_parquet(path) else delimited.read_texts(path, columns, layout)


def read_instants(path: Path, column: Column) -> np.ndarray | None:
    """Seconds of a column whose type says that it holds times; None for other columns, and in text files.

    Raises:
        DataError: If the file cannot be read, or lacks the column.
    """
    return parquet_tables.read_instants(path, column) if is_parquet(path) else None


def seems_headerless(path: Path, columns: Sequence[Column], layout: TextLayout) -> bool:
    """True for a text file whose first line has numbers where `columns` are.

    Raises:
        DataError: If the file cannot be read.
    """
    return not is_parquet(path) and delimited.seems_headerless(path, columns, layout)
