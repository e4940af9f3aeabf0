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
            raise NotApplicable("it gives no table: see the check 'table'") from error


@check("class_embedding")
def table(subject: Subject) -> None:
    """It returns a float32 row of finite numbers for every class."""
    classes = _classes(subject)
    found = subject.made().table(classes)
    shown = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
    right = isinstance(found, np.ndarray) and found.dtype == np.float32 and found.ndim == 2 and len(found) == len(classes)
    require(right, f"for {len(classes)} classes it gives {shown}, not float32 ({len(classes)}, D)")
    require(np.isfinite(found).all(), "not all of its numbers are finite")


@check("class_embedding")
def classes_differ(subject: Subject) -> None:
    """Different classes have different vectors."""
    found, classes = _table(subject), _classes(subject)
    same = [(a, b) for n, a in enumerate(classes) for m, b in enumerate(classes[:n]) if np.array_equal(found[n], found[m])]
    require(not same, f"equal vectors for {' and '.join(map(repr, same[0] if same else ()))}")


@check("class_embedding")
def rows_follow_names(subject: Subject) -> None:
    """A class has the same vector regardless of the order of classes."""
    classes = _classes(subject)
    found, turned = _table(subject), _table(subject, classes[::-1])
    require(np.allclose(found, turned[::-1], atol=1e-5), "the vectors depend on the order of the classes")


@check("class_embedding")
def deterministic(subject: Subject) -> None:
    """Constructed again, it returns the same vectors, regardless of the seed."""
    first = _table(subject)
    with seeded(1):
        second = np.asarray(subject.made().table(_classes(subject)))
    require(np.array_equal(first, second), "constructed again, it gives different vectors")
