"""Protocols: named rules that divide samples into splits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdcore.contracts.dataset import Sample, SampleKey
from kdcore.contracts.target import EVERY_TARGET, TargetKind

HELD_OUT = ("validation", "test")
"""Splits that nothing learns from, whatever a schedule or a plugin asks: one chooses epochs, the other gives results."""


@dataclass(frozen=True)
class Splits:
    """Samples divided by a protocol into splits.

    Args:
        samples: ``train``, ``validation`` (may be empty) and ``test``; a protocol may add ``teacher``, the samples
            teachers learn from where they must not be the students'.
        rule: The rule in one sentence, recorded with every run.
        disjoint: Fields of `SampleKey` (e.g. ``subject``) of which no value may stand both in a
            split that is learnt from and in the test split; the leakage audit checks it.
    """

    samples: Mapping[str, tuple[Sample, ...]]
    rule: str
    disjoint: tuple[str, ...] = ()

    @property
    def split_of(self) -> dict[SampleKey, str]:
        """Sample → its split."""
        return {sample.key: split for split, members in self.samples.items() for sample in members}


class Protocol(ABC):
    """A rule that says which samples train, validate and test.

    Attributes:
        targets: Kinds of targets that it is for; a rule that reads class labels is for ``("classes",)``.
    """

    targets: tuple[TargetKind, ...] = EVERY_TARGET

    @abstractmethod
    def split(self, samples: Sequence[Sample]) -> Splits:
        """Divide `samples`.

        Raises:
            DataError: If the samples do not admit this rule (an unknown subject, an empty split).
        """
