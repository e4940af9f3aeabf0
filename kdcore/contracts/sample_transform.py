"""Transforms of one recorded signal. This module loads no torch, so that processes that only read recordings start fast."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from kdcore.contracts.modality import Modality, Signal

if TYPE_CHECKING:
    from torch import nn


class SampleTransform(ABC):
    """Works on one recorded signal of any length, before batching: deterministic, done once, cached.

    The last of them must leave every sample with the same shape.
    """

    @abstractmethod
    def __call__(self, signal: Signal) -> Signal:
        """The transformed signal.

        Raises:
            ValueError: If the signal is unfit; the run reports it as a bad sample, by file.
        """

    def output_spec(self, spec: Modality) -> Modality:
        """The spec of the transformed signal, given that of the recorded one: by default the same."""
        return spec

    def as_module(self) -> nn.Module | None:
        """The same for evenly sampled recordings of any length, as a module that an exported student can carry.

        It maps a batch (B, T, …), axes as recorded, and may take nothing else from the signal. None, the default, where there
        is no such module; an export then finds out by trial whether the transform is linear in time, and fixes T.
        """
        return None


def output_spec(spec: Modality, transform: object) -> Modality:
    """`spec` after one more transform; as it is after a module that does not say."""
    describe = getattr(transform, "output_spec", None)
    return spec if describe is None else describe(spec)
