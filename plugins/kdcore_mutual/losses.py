"""Losses of cross-modal distillation with mutual learning."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Gt
from torch import Tensor
from torch.nn import functional as F

from kdcore import DistillationLoss, LossContext, Needs, Ramp
from kdcore.functional import full_precision, softened_kl

Direction = Literal["printed", "hinton"]


def divergence(student: Tensor, other: Tensor, temperature: float, direction: Direction) -> Tensor:
    """KL(student ‖ other) as the paper prints it, or KL(other ‖ student) as Hinton has it; the mean over the batch."""
    return softened_kl(student, other, temperature, reverse=direction == "printed").mean()


class HardTeacher(DistillationLoss):
    """Cross-entropy with a teacher's most probable class; reads no labels.

    .. math:: L = \\frac1K \\sum_k \\mathrm{CE}(z_S, \\arg\\max_c z_{kc})

    F. M. Thoker, J. Gall, "Cross-Modal Knowledge Distillation for Action Recognition", ICIP 2019,
    https://arxiv.org/abs/1910.04641, Eq. (3).
    """

    needs = Needs(teachers=1)

    def forward(self, ctx: LossContext) -> Tensor:
        """The mean over teachers and batch."""
        logits = full_precision(ctx.student.logits)
        terms = [F.cross_entropy(logits, teacher.logits.argmax(dim=1)) for teacher in ctx.teachers.values()]
        return torch.stack(terms).mean()


class Divergence(DistillationLoss):
    """KL divergence between student and teachers at a temperature; reads no labels.

    .. math:: L = \\frac1K \\sum_k \\mathrm{KL}(p_S^\\tau \\| p_k^\\tau), \\quad p^\\tau = \\mathrm{softmax}(z / \\tau)

    as printed; with ``direction: hinton`` the arguments change places. F. M. Thoker, J. Gall, "Cross-Modal Knowledge
    Distillation for Action Recognition", ICIP 2019, https://arxiv.org/abs/1910.04641, Eqs. (1)-(2).

    Args:
        temperature: τ, a number or a ramp over epochs.
        direction: ``printed``, KL(student ‖ teacher), or ``hinton``, KL(teacher ‖ student).
        squared: Multiply by τ².
    """

    needs = Needs(teachers=1)

    def __init__(
        self,
        *,
        temperature: Annotated[float, Gt(0)] | Ramp = 10.0,
        direction: Direction = "printed",
        squared: bool = False,
    ):
        super().__init__()
        self.temperature = temperature
        self.direction: Direction = direction
        self.squared = squared
        self.temperature_power = 2 if squared else 0

    def forward(self, ctx: LossContext) -> Tensor:
        """The mean over teachers and batch."""
        tau = ctx.progress.at(self.temperature)
        terms = [divergence(ctx.student.logits, each.logits, tau, self.direction) for each in ctx.teachers.values()]
        return torch.stack(terms).mean() * (tau**2 if self.squared else 1.0)


class Mutual(DistillationLoss):
    """KL divergence between a student and the current outputs of its peers.

    .. math:: L_k = \\frac1{K-1} \\sum_{l \\ne k} \\mathrm{KL}(p_k^\\tau \\| p_l^\\tau)

    F. M. Thoker, J. Gall, "Cross-Modal Knowledge Distillation for Action Recognition", ICIP 2019,
    https://arxiv.org/abs/1910.04641, Eqs. (4)-(6); after Y. Zhang et al., "Deep Mutual Learning", CVPR 2018,
    https://arxiv.org/abs/1706.00384. 0 for a student without peers.

    Args:
        temperature: τ, a number or a ramp over epochs.
        direction: ``printed``, KL(student ‖ peer), or ``hinton``, KL(peer ‖ student).
    """

    needs = Needs(peers=1)
    temperature_power = 0

    def __init__(self, *, temperature: Annotated[float, Gt(0)] | Ramp = 10.0, direction: Direction = "printed"):
        super().__init__()
        self.temperature = temperature
        self.direction: Direction = direction

    def forward(self, ctx: LossContext) -> Tensor:
        """The mean over peers and batch."""
        if not ctx.peers:
            return ctx.student.logits.sum() * 0.0
        tau = ctx.progress.at(self.temperature)
        peers = (peer.logits.detach() for peer in ctx.peers.values())
        return torch.stack([divergence(ctx.student.logits, peer, tau, self.direction) for peer in peers]).mean()
