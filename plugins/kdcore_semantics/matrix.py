"""Class embeddings from a file that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from kdcore import ClassEmbeddings, DataError
from kdcore_semantics.words import words_of


class Matrix(ClassEmbeddings):
    """Rows of a ready-made matrix.

    Args:
        path: A ``.npy`` file with one row per class.
        names: A text file with one class name per line, in the order of the rows. With it rows are found by name, whatever
            their order and whatever further ones there are; names are compared by their words, without case. Without it the
            rows must be as many as the classes, and in their order.
    """

    def __init__(self, *, path: Path, names: Path | None = None):
        self.path = Path(path)
        self.names = Path(names) if names else None

    def table(self, classes: Sequence[str]) -> np.ndarray:
        """One row per class, (classes, D), float32.

        Raises:
            DataError: If a file is unfit, or a class has no row.
        """
        matrix = self._matrix()
        if self.names is None:
            if len(matrix) != len(classes):
                raise DataError(
                    f"{self.path} has {len(matrix)} rows for {len(classes)} classes; give `names` to pick rows by class name"
                )
            return matrix
        rows = self._rows(self.names, len(matrix))
        return matrix[[self._row(name, rows) for name in classes]]

    def _matrix(self) -> np.ndarray:
        try:
            matrix = np.load(self.path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{self.path}: cannot read class embeddings: {error}") from error
        if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
            raise DataError(f"{self.path}: class embeddings must be one matrix of numbers, (classes, D)")
        if not np.isfinite(matrix).all():
            raise DataError(f"{self.path}: class embeddings hold numbers that are not finite")
        return matrix.astype(np.float32)

    def _rows(self, path: Path, count: int) -> dict[str, int]:
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot read class names: {error}") from error
        rows = {_key(line): row for row, line in enumerate(lines)}
        if len(lines) != count:
            raise DataError(f"{path} names {len(lines)} classes, {self.path} has {count} rows")
        if len(rows) != len(lines):
            raise DataError(f"{path} names a class twice")
        return rows

    def _row(self, name: str, rows: dict[str, int]) -> int:
        if _key(name) not in rows:
            near = get_close_matches(_key(name), rows, n=1)
            raise DataError(f"{self.names} has no class {name!r}" + (f"; the nearest is {near[0]!r}" if near else ""))
        return rows[_key(name)]


def _key(name: str) -> str:
    return " ".join(words_of(name)).lower()
