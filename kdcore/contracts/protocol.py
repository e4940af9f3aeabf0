"""Protocols: named rules that split samples into parts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdcore.contracts.dataset import Sample


@dataclass(frozen=True)
class Split:
    """Samples divided by a protocol.

    Args:
        parts: ``train``, ``validation`` (may be empty) and ``test``; a protocol may add ``teacher``, the samples
            teachers learn from where they must not be the students'.
        rule: The rule in one sentence, recorded with every run.
        disjoint: Fields of `SampleKey` (e.g. ``subject``) of which no value may stand on both sides of a
            training and a test part; the leakage audit holds the split to it.
    """

    parts: Mapping[str, tuple[Sample, ...]]
    rule: str
    disjoint: tuple[str, ...] = ()


class Protocol(ABC):
    """A rule that says which samples train, validate and test."""

    @abstractmethod
    def split(self, samples: Sequence[Sample]) -> Split:
        """Divide `samples`.

        Raises:
            DataError: If the samples do not admit this rule (an unknown subject, an empty part).
        """
