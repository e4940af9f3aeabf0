"""Batches whose samples are mixed with one another: mixup and cutmix, alike for every participant."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kdcore.errors import TrainingError
from kdcore.recipe.data_models import MixSpec
from kdcore.recipe.graph import StagePlan
from kdcore.training.participants import Distiller


@dataclass(frozen=True)
class Mix:
    """The mixture of one batch, the same for the inputs of every participant.

    .. math:: \\tilde x_i = \\lambda x_i + (1 - \\lambda) x_{\\pi(i)}

    for mixup. Cutmix takes a stretch of time from the partner, a share 1 - λ of the whole, and all else from the sample.

    Args:
        partner: (B,) int64, π: the sample that each is mixed with.
        share: λ, each sample's own share.
        span: Start and end of the stretch as shares of the time; None for mixup.
    """

    partner: Tensor
    share: float
    span: tuple[float, float] | None = None

    def __call__(self, x: Tensor, layout: tuple[str, ...], name: str) -> Tensor:
        """The mixed inputs (B, …) of the participant `name`.

        Args:
            x: Inputs of its encoder.
            layout: Names of their axes without the batch axis.
            name: Its name.

        Raises:
            TrainingError: If they are whole numbers.
        """
        if not x.is_floating_point():
            raise TrainingError(f"data.mix: the input of {name} is {x.dtype}, and only floating-point inputs can be mixed")
        other = x[self.partner]
        if self.span is None:
            return torch.lerp(other, x, self.share)
        axis = layout.index("time") + 1
        start, stop = (round(bound * x.shape[axis]) for bound in self.span)
        instants = torch.arange(x.shape[axis], device=x.device)
        taken = ((instants >= start) & (instants < stop)).view(-1, *[1] * (x.ndim - axis - 1))
        return torch.where(taken, other, x)


def is_mixed(spec: MixSpec | None, stage: StagePlan, distiller: Distiller) -> bool:
    """Return True if the batches of a stage are mixed."""
    return spec is not None and (spec.learners == "all" or any(name in distiller.students for name in stage.learners))


def draw(spec: MixSpec, count: int, seed: int | None, device: torch.device) -> Mix | None:
    """The mixture of a batch of `count` samples, which depends on `seed` alone; None for a batch that is not mixed.

    Args:
        spec: The recipe's.
        count: B.
        seed: Of the step; None for a batch that is mixed in any case.
        device: Where the batch is.
    """
    random = np.random.default_rng(seed or 0)
    if random.random() >= spec.probability and seed is not None:
        return None
    share = float(random.beta(spec.alpha, spec.alpha))
    start = float(random.uniform(0, share))
    partner = torch.from_numpy(random.permutation(count)).to(device)
    return Mix(partner, share, (start, start + 1 - share) if spec.name == "cutmix" else None)
