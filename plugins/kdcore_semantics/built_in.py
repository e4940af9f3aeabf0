"""Class embeddings that need no file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated

import numpy as np
from annotated_types import Ge

from kdcore import ClassEmbeddings
from kdcore_semantics.words import words_of

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
