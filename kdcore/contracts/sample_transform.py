"""Transforms of one recorded signal. Does not import torch, so that processes that only read recordings start fast."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from kdcore.contracts.modality import Modality, Signal

if TYPE_CHECKING:
    from torch import nn


class SampleTransform(ABC):
    """Base class of transforms of one recorded signal of any length, before batching: deterministic, applied once, cached.

    After the last one, all samples must have the same shape.
    """

    @abstractmethod
    def __call__(self, signal: Signal) -> Signal:
        """Transform a signal.

        Raises:
            ValueError: If the signal is invalid; the run reports its file as a bad sample.
        """

    def output_spec(self, spec: Modality) -> Modality:
        """The spec of the transformed signal, given that of the input; the same by default."""
        return spec

    def as_module(self) -> nn.Module | None:
        """The transform as a module for exported students, for regularly sampled recordings of any length.

        It maps a batch (B, T, …), with axes as recorded, and reads nothing else from the signal. None, the default, if there is
        no such module; an export then tests whether the transform is linear in time, and fixes T.
        """
        return None


def output_spec(spec: Modality, transform: object) -> Modality:
    """The spec after `transform`; unchanged if the transform does not define `output_spec`."""
    describe = getattr(transform, "output_spec", None)
    return spec if describe is None else describe(spec)
