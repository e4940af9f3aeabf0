"""Students that teach each other."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from kdcore import DistillationLoss, LossContext, Needs, Ramp
from kdcore_mutual.divergence import Direction, divergence


class Mutual(DistillationLoss):
    """KL divergence between a student and each of its peers, which are taken as they are at this step.

    .. math:: L_k = \\frac1{K-1} \\sum_{l \\ne k} \\mathrm{KL}(p_k^\\tau \\| p_l^\\tau)

    F. M. Thoker, J. Gall, "Cross-Modal Knowledge Distillation for Action Recognition", ICIP 2019, Eqs. (4)-(6); after
    Y. Zhang et al., "Deep Mutual Learning", CVPR 2018. 0 for a student without peers.

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
