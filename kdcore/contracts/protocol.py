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
        samples: ``train``, ``validation`` (may be empty) and ``test``; a protocol may add ``teacher``, training samples of
            teachers that students do not have.
        rule: The rule in one sentence, recorded with every run.
        disjoint: Fields of `SampleKey` (e.g. ``subject``) whose values may not occur in both a training split and the test
            split; the leakage audit checks this.
    """

    samples: Mapping[str, tuple[Sample, ...]]
    rule: str
    disjoint: tuple[str, ...] = ()

    @property
    def split_of(self) -> dict[SampleKey, str]:
        """Sample → its split."""
        return {sample.key: split for split, members in self.samples.items() for sample in members}


class Protocol(ABC):
    """A rule that divides samples into training, validation and test splits.

    Attributes:
        targets: Supported kinds of targets; a rule that reads class labels sets ``("classes",)``.
    """

    targets: tuple[TargetKind, ...] = EVERY_TARGET

    @abstractmethod
    def split(self, samples: Sequence[Sample]) -> Splits:
        """Divide `samples`.

        Raises:
            DataError: If the rule cannot be applied to the samples (an unknown subject, an empty split).
        """
