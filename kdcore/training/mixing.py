"""Mixup and cutmix, with the same partners and shares for every participant."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from kdcore.contracts.batch import LossContext
from kdcore.contracts.needs import Needs
from kdcore.contracts.target import known
from kdcore.errors import TrainingError
from kdcore.recipe.data_models import MixSpec
from kdcore.recipe.graph import StagePlan
from kdcore.training.participants import Distiller


@dataclass(frozen=True)
class Mix:
    """Mixes the inputs of one batch, in the same way for every participant.

    .. math:: \\tilde x_i = \\lambda x_i + (1 - \\lambda) x_{\\pi(i)}

    for mixup. Cutmix replaces a time interval, a share 1 - λ of the duration, by that of the partner.

    Args:
        partner: (B,) int64, the permutation π.
        share: λ, in [0, 1].
        span: Start and end of the interval as fractions of the duration; None for mixup.
    """

    partner: Tensor
    share: float
    span: tuple[float, float] | None = None

    def __call__(self, x: Tensor, layout: tuple[str, ...], name: str) -> Tensor:
        """Mix the inputs of a participant.

        Args:
            x: (B, …) floating-point inputs of its encoder.
            layout: Axis names of `x` without the batch axis; cutmix needs ``time``.
            name: Name of the participant, for messages.

        Raises:
            TrainingError: If the inputs are integers.
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


def label_parts(mix: Mix | None, needs: Needs, context: LossContext) -> list[tuple[float, LossContext]]:
    """(share, context) for each of the two label sets of a mixed batch; (1, context) for a batch or loss without them."""
    labels, weights = context.batch.labels, context.batch.weights
    if mix is None or labels is None or not needs.labels:
        return [(1.0, context)]
    parts = []
    for share, index in ((mix.share, slice(None)), (1 - mix.share, mix.partner)):
        batch = context.batch.with_labels(labels[index]).with_weights(None if weights is None else weights[index])
        part, labelled = replace(context, batch=batch), known(labels[index])
        if needs.labelled and not bool(labelled.all()):
            part = part.select(labelled.nonzero().flatten())
        parts.append((share, part))
    return parts


def is_mixed(spec: MixSpec | None, stage: StagePlan, distiller: Distiller) -> bool:
    """True if the batches of a stage are mixed."""
    return spec is not None and (spec.learners == "all" or any(name in distiller.students for name in stage.learners))


def draw(spec: MixSpec, count: int, seed: int | None, device: torch.device) -> Mix | None:
    """Draw the mixing of a batch; None for a batch that is not mixed.

    The draw depends on `seed` only, so both arms mix alike and a resumed run repeats it.

    Args:
        spec: The recipe's ``data.mix`` section.
        count: Batch size B.
        seed: Seed of the step; None to mix regardless of the probability.
        device: Device of the batch.
    """
    random = np.random.default_rng(seed or 0)
    if random.random() >= spec.probability and seed is not None:
        return None
    share = float(random.beta(spec.alpha, spec.alpha))
    start = float(random.uniform(0, share))
    partner = torch.from_numpy(random.permutation(count)).to(device)
    return Mix(partner, share, (start, start + 1 - share) if spec.name == "cutmix" else None)
