"""Checks of class embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdcore.testing.case import NotApplicable, require
from kdcore.testing.checks import Subject, check, seeded

CLASSES = ("walk", "run", "sit down", "stand up", "draw circle")


def _classes(subject: Subject) -> Sequence[str]:
    return tuple(subject.case.inputs or CLASSES)


def _table(subject: Subject, classes: Sequence[str] | None = None) -> np.ndarray:
    with seeded():
        source = subject.made()
        try:
            return np.asarray(source.table(classes or _classes(subject)))
        except Exception as error:
            raise NotApplicable("table() failed: see the check 'table'") from error


@check("class_embedding")
def table(subject: Subject) -> None:
    """It returns a float32 row of finite numbers for every class."""
    classes = _classes(subject)
    result = subject.made().table(classes)
    shown = f"{result.dtype} {result.shape}" if isinstance(result, np.ndarray) else type(result).__name__
    valid = isinstance(result, np.ndarray) and result.dtype == np.float32 and result.ndim == 2 and len(result) == len(classes)
    require(valid, f"for {len(classes)} classes it returns {shown}, not float32 ({len(classes)}, D)")
    require(np.isfinite(result).all(), "some values are not finite")


@check("class_embedding")
def classes_differ(subject: Subject) -> None:
    """Different classes have different vectors."""
    vectors, classes = _table(subject), _classes(subject)
    same = [(a, b) for n, a in enumerate(classes) for m, b in enumerate(classes[:n]) if np.array_equal(vectors[n], vectors[m])]
    require(not same, f"equal vectors for {' and '.join(map(repr, same[0] if same else ()))}")


@check("class_embedding")
def rows_follow_names(subject: Subject) -> None:
    """A class has the same vector regardless of the order of classes."""
    classes = _classes(subject)
    vectors, reversed_vectors = _table(subject), _table(subject, classes[::-1])
    require(np.allclose(vectors, reversed_vectors[::-1], atol=1e-5), "the vectors depend on the order of the classes")


@check("class_embedding")
def deterministic(subject: Subject) -> None:
    """Constructed again, it returns the same vectors, regardless of the seed."""
    first = _table(subject)
    with seeded(1):
        second = np.asarray(subject.made().table(_classes(subject)))
    require(np.array_equal(first, second), "constructed again, it returns different vectors")
