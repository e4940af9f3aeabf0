"""Transforms of batches: from equally long signals to the tensor an encoder reads.

A constructor parameter ``spec`` is filled in by kdcore with the `Modality` that describes the transform's input, and is no
option of the recipe. Give it the default None, for transforms made in code.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdcore.contracts.modality import Modality


class Transform(nn.Module):
    """Base class of transforms of batches ``(B, …)``, on the batch's device.

    A deterministic transform is computed once per sample and cached, unless a transform that runs per batch precedes it.
    Buffers (such as fitted statistics) are saved with the student.

    Attributes:
        augmentation: True for random transforms, which run per batch and only in training.
        per_batch: True to always run per batch, without caching: to save memory (bytes to floats), or, together with
            `augmentation`, if evaluation needs a counterpart (``self.training`` tells them apart).
        fitted: True if `fit` must be called with the training samples first.
    """

    augmentation: ClassVar[bool] = False
    per_batch: ClassVar[bool] = False
    fitted: ClassVar[bool] = False

    def output_spec(self, spec: Modality) -> Modality:
        """The spec of the transformed batch, given that of ``x``: by default the same.

        Override it where axes, channels, rate or units change.
        """
        return spec

    def fit(self, x: Tensor) -> None:
        """Fit statistics to the training split ``x`` of shape (N, …)."""

    def forward(self, x: Tensor) -> Tensor:
        """``x`` of shape (B, …) transformed.

        Raises:
            ValueError: If batches of such a shape are unfit; the recipe's line is told before anything is trained.
        """
        raise NotImplementedError


class Join(nn.Module):
    """Makes one tensor from several modalities' tensors; first in a participant's ``joined`` transforms.

    Plain `Join` concatenates along the channel axis, shapes (B, C_i, …) → (B, ΣC_i, …).
    """

    def output_spec(self, specs: tuple[Modality, ...]) -> Modality:
        """The spec of the joined tensor, given those of the parts."""
        return concatenated(specs)

    def forward(self, parts: tuple[Tensor, ...]) -> Tensor:
        """One tensor from `parts`, which come in the order of the participant's modalities."""
        return torch.cat(parts, dim=1)


def concatenated(specs: tuple[Modality, ...]) -> Modality:
    """The spec of parts laid side by side along the channel axis: what all of them agree on."""
    first, *others = specs
    if not others:
        return first
    unknown: dict[str, Any] = {"units": "", "rate": None, "placement": "", "skeleton": "", "persons": None, "links": ()}
    agreed = {name for name in unknown if all(getattr(other, name) == getattr(first, name) for other in others)}
    known = all(spec.channels for spec in specs)
    return replace(
        first,
        name="+".join(spec.name for spec in specs),
        channels=tuple(f"{spec.name}.{channel}" for spec in specs for channel in spec.channels) if known else (),
        description="",
        **{name: value for name, value in unknown.items() if name not in agreed},
    )
