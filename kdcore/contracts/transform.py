"""Transforms of batches: from signals of equal length to the encoder's input.

kdcore passes the `Modality` of the input to a constructor parameter ``spec``, which is not an option of the recipe. Give it the
default None, for transforms constructed in Python.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdcore.contracts.modality import Modality
from kdcore.errors import DataError


class Transform(nn.Module):
    """Base class of transforms of batches ``(B, …)``, on the batch's device.

    A deterministic transform is applied once per sample and cached, unless one before it runs per batch. Buffers, such as
    fitted statistics, are saved with the student.

    Attributes:
        augmentation: True for random transforms: applied per batch, and only during training.
        per_batch: True to apply the transform per batch and never cache its result: to save memory (bytes to floats), or,
            together with `augmentation`, if evaluation needs a deterministic counterpart (see ``self.training``).
        fitted: True if `fit` must be called with the training samples first. Default: whether the class defines `fit`.
    """

    augmentation: ClassVar[bool] = False
    per_batch: ClassVar[bool] = False
    fitted: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "fit" in vars(cls) and "fitted" not in vars(cls):
            cls.fitted = True

    def output_spec(self, spec: Modality) -> Modality:
        """The spec of the transformed batch, given that of ``x``; the same by default.

        Override it if axes, channels, rate or units change.
        """
        return spec

    def fit(self, x: Tensor) -> None:
        """Fit statistics to the training split ``x`` of shape (N, …)."""

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``x`` of shape (B, …).

        Raises:
            ValueError: If the shape is not supported; reported with the recipe's line before training.
        """
        raise NotImplementedError


class Join(nn.Module):
    """Joins the tensors of several modalities into one; the first of a participant's ``joined`` transforms.

    Plain `Join` concatenates along the channel axis, shapes (B, C_i, …) → (B, ΣC_i, …).
    """

    def output_spec(self, specs: tuple[Modality, ...]) -> Modality:
        """The spec of the joined tensor, given those of the parts."""
        return concatenated(specs)

    def forward(self, parts: tuple[Tensor, ...]) -> Tensor:
        """Join `parts`, given in the order of the participant's modalities.

        Raises:
            DataError: If they differ in another axis than the channels.
        """
        try:
            return torch.cat(parts, dim=1)
        except RuntimeError as error:
            shapes = " and ".join(str(tuple(part.shape[1:])) for part in parts)
            if len({part.shape[2:] for part in parts}) == 1:
                raise
            raise DataError(f"the signals to join have the shapes {shapes}; resample or pad them to one length") from error


def concatenated(specs: tuple[Modality, ...]) -> Modality:
    """The spec of parts concatenated along the channel axis; entries on which they differ become unknown."""
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
