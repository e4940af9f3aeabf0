"""Class embeddings from a file of GloVe vectors."""

from __future__ import annotations

import codecs
import logging
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import numpy as np
from annotated_types import Ge

from kdcore import ClassEmbeddings, DataError
from kdcore_semantics.words import words_of

_log = logging.getLogger(__name__)
_HEADER = re.compile(rb"\d+ \d+\s*")


class Glove(ClassEmbeddings):
    """The sum of the GloVe vectors of a class name's words.

    The file is read line by line, up to the last word needed; the two whole numbers at the head of word2vec's files are passed
    over. A word is looked up as written, then in lower case.

    Source: Pennington et al., GloVe (EMNLP 2014); summed over words as in Liu et al. (TIP 2021), who use
    ``glove.840B.300d.txt``.

    Args:
        path: The text file: a word and its numbers on every line.
        dimension: Numbers per word.
        unknown: What a word that is not in the file does: stop with an ``error``, or contribute nothing (``skip``).
    """

    def __init__(self, *, path: Path, dimension: Annotated[int, Ge(1)] = 300, unknown: Literal["error", "skip"] = "error"):
        self.path = Path(path)
        self.dimension = dimension
        self.unknown = unknown

    def table(self, classes: Sequence[str]) -> np.ndarray:
        """One row per class, (classes, dimension), float32.

        Raises:
            DataError: If the file is unfit, or a class has a word (or no word) that is not in it.
        """
        names = {name: words_of(name) for name in classes}
        vectors = self._read({form for words in names.values() for word in words for form in (word, word.lower())})
        return np.stack([self._sum(name, names[name], vectors) for name in classes]).astype(np.float32)

    def _sum(self, name: str, words: Sequence[str], vectors: dict[str, np.ndarray]) -> np.ndarray:
        found = [vectors.get(word, vectors.get(word.lower())) for word in words]
        missing = [word for word, vector in zip(words, found, strict=True) if vector is None]
        if missing and self.unknown == "error":
            listed = ", ".join(map(repr, missing))
            raise DataError(f"{self.path}: no vector for {listed} of class {name!r}; unknown: skip leaves such words out")
        if len(missing) == len(words):
            raise DataError(f"{self.path}: no vector for any word of class {name!r}")
        if missing:
            _log.warning("class %r: no vector for %s, left out", name, ", ".join(missing))
        return np.sum([vector for vector in found if vector is not None], axis=0)

    def _read(self, wanted: set[str]) -> dict[str, np.ndarray]:
        pending = {word.encode() for word in wanted}
        vectors: dict[str, np.ndarray] = {}
        try:
            with self.path.open("rb") as file:
                for number, line in self._lines(file):
                    # Some entries hold spaces ("to name@domain.com"): numbers are counted from the end.
                    if line[: line.find(b" ")] not in pending:
                        continue
                    word, *numbers = line.rstrip().rsplit(b" ", self.dimension)
                    if word in pending:
                        vectors[word.decode()] = self._parse(numbers, number)
                        pending.remove(word)
                        if not pending:
                            break
        except OSError as error:
            raise DataError(f"{self.path}: cannot read GloVe vectors: {error.strerror}") from error
        return vectors

    def _lines(self, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
        """The lines with vectors, by their numbers: without a byte order mark and the header of word2vec's files."""
        lines = enumerate(file, start=1)
        number, first = next(lines, (1, b""))
        first = first.removeprefix(codecs.BOM_UTF8)
        if self.dimension > 1 and _HEADER.fullmatch(first):
            self._check_width(int(first.split()[1]), number)
            number, first = next(lines, (2, b""))
        if not first.strip():
            raise DataError(f"{self.path}: {'line 1 is empty' if number == 1 and first else 'holds no vectors'}")
        if b"\t" in first:
            raise DataError(f"{self.path}: has tabs between a word and its numbers; they must be single blanks")
        self._check_width(len(first.split()) - 1, number)
        return chain([(number, first)], lines)

    def _check_width(self, width: int, line: int) -> None:
        if width != self.dimension:
            raise DataError(f"{self.path}: line {line} has {width} numbers, not {self.dimension}: is `dimension` right?")

    def _parse(self, numbers: Sequence[bytes], line: int) -> np.ndarray:
        try:
            vector = np.array([float(number) for number in numbers])
        except ValueError as error:
            raise DataError(f"{self.path}: line {line} is damaged: {error}") from error
        if len(vector) != self.dimension or not np.isfinite(vector).all():
            raise DataError(f"{self.path}: line {line} is damaged: it does not hold {self.dimension} finite numbers")
        return vector
