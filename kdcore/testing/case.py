"""Test cases: settings of a component under test, and the answers of a check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """The settings for testing a component, where they cannot be guessed.

    Args:
        options: The options to test it with, as a recipe would give them; or a function that makes them, given an empty
            folder to put files into. The function may raise `NotApplicable` where what it needs is not there.
        inputs: What the component is given; by default the kit tries what is usual. It depends on the kind:

            - loss: tap → shape of its activation without the batch axis; ``student/tap`` and ``teacher/tap`` where the
              sides differ.
            - encoder: an ``in_shape``, or a list of several.
            - fusion: a function from a number of samples to (teachers, batch).
            - transform: a signal, a tensor ``(B, …)`` or, for a join, a tuple of tensors; or a list of several.
            - schedule: a list of `kdcore.Graph`.
            - protocol: a list of `kdcore.Sample`.
            - class embedding: a list of class names.
            - dataset: how many samples of those there are to read.
    """

    options: Options | Callable[[Path], Options] = field(default_factory=dict)
    inputs: Any = None


class ConformanceError(AssertionError):
    """A component breaks its contract; the text says how, and what to do."""


class NotApplicable(Exception):  # noqa: N818 - no error
    """A check has nothing to say of this component, or cannot be done here; the text says why."""


def require(condition: object, message: str) -> None:
    """Raise `ConformanceError` unless `condition` holds."""
    if not condition:
        raise ConformanceError(message)
