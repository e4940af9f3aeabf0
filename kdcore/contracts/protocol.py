"""Protocols: named rules that divide samples into splits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

from kdcore.contracts.dataset import Sample, SampleKey
from kdcore.contracts.target import EVERY_TARGET, TargetKind

HELD_OUT = ("validation", "test")
"""Splits that must never be trained on: one selects epochs, the other gives the results."""


@dataclass(frozen=True)
class Splits:
    """Samples divided by a protocol into splits.

    Args:
        samples: Split → samples: ``train``, ``validation`` (may be empty) and ``test``. A protocol may add ``teacher``, for
            teachers that must train on other samples than the students.
        rule: The rule in one sentence, recorded with every run.
        disjoint: Fields of `SampleKey`, such as ``subject``, whose values must not occur in both a training split and the test
            split; the leakage audit checks this.
    """

    samples: Mapping[str, tuple[Sample, ...]]
    rule: str
    disjoint: tuple[str, ...] = ()

    @property
    def split_of(self) -> dict[SampleKey, str]:
        """Sample → its split."""
        return {sample.key: split for split, members in self.samples.items() for sample in members}

    def without(self, left_out: Container[SampleKey]) -> Splits:
        """Return the splits without some of their samples."""
        kept = {split: tuple(each for each in members if each.key not in left_out) for split, members in self.samples.items()}
        return replace(self, samples=kept)


class Protocol(ABC):
    """Base class of protocols: rules that divide samples into training, validation and test splits.

    Attributes:
        targets: Supported kinds of targets; ``("classes",)`` for a rule that reads class labels.
    """

    targets: tuple[TargetKind, ...] = EVERY_TARGET

    @abstractmethod
    def split(self, samples: Sequence[Sample]) -> Splits:
        """Divide `samples`.

        Raises:
            DataError: If the rule cannot be applied, for example to an unknown subject or with an empty split.
        """
