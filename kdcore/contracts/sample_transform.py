"""Transforms of one recorded signal. This module loads no torch, so that processes that only read recordings start fast."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from kdcore.contracts.modality import Modality, Signal

if TYPE_CHECKING:
    from torch import nn


class SampleTransform(ABC):
    """Base class of deterministic transforms of one recorded signal of any length, computed once and cached.

    After the last of them, all samples must have the same shape.
    """

    @abstractmethod
    def __call__(self, signal: Signal) -> Signal:
        """The transformed signal.

        Raises:
            ValueError: If the signal cannot be transformed; the run reports it as a bad sample with its file.
        """

    def output_spec(self, spec: Modality) -> Modality:
        """The spec of the transformed signal, given that of the recorded one: by default the same."""
        return spec

    def as_module(self) -> nn.Module | None:
        """Return an equivalent module for evenly sampled recordings of any length, for exported students.

        It maps a batch (B, T, …), with axes as recorded, and reads nothing else of the signal. None, the default, if there is
        no such module; an export then tests whether the transform is linear in time, and fixes T.
        """
        return None


def output_spec(spec: Modality, transform: object) -> Modality:
    """`spec` after one more transform; as it is after a module that does not say."""
    describe = getattr(transform, "output_spec", None)
    return spec if describe is None else describe(spec)
