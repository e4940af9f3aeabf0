"""Class embeddings: a vector for the meaning of every class name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


class ClassEmbeddings(ABC):
    """Turns class names into vectors."""

    @abstractmethod
    def table(self, classes: Sequence[str]) -> np.ndarray:
        """One row per class, shape (classes, D), float32.

        Raises:
            DataError: If a class has no vector, naming it.
        """
