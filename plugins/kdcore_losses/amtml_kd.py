"""Several teachers, with learnt weights for each sample."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn

from kdcore import Example, LossContext, Needs, Ramp
from kdcore.functional import full_precision, per_sample, softened_kl
from kdcore_losses.logit_loss import LogitLoss


class AdaptiveTeachers(LogitLoss):
    """Soft targets from a mean of all teachers' probabilities, with learnt weights for each sample.

    .. math:: L = T^2\\, \\mathrm{KL}\\!\\left(\\textstyle\\sum_k w_{bk}\\, p_{bk} \\,\\|\\, p_{bS}\\right), \\quad
        w_{bk} = \\mathrm{softmax}_k\\!\\left(v^\\top (\\theta_k \\odot \\alpha_b)\\right)

    averaged over the batch, with p the softmax at temperature T, :math:`\\alpha_b` the largest activation of each of the
    student's channels, :math:`\\theta_k` a learnt factor of each teacher and v a learnt vector. Y. Liu, W. Zhang, J. Wang,
    "Adaptive Multi-Teacher Multi-level Knowledge Distillation", Neurocomputing 415, 2020, https://arxiv.org/abs/2103.04062,
    the soft-target part; its hints and angles are ``fitnet`` and ``rkd``.

    Args:
        tap: The student's activation that the weights depend on.
        temperature: T, a number or a ramp over epochs.
        standardise: Standardise logits first, as ``logit-std`` does.
    """

    def __init__(self, *, tap: str = "features", temperature: Annotated[float, Gt(0)] | Ramp = 4.0, standardise: bool = False):
        super().__init__(standardise)
        self.tap = tap
        self.temperature = temperature
        self.factors = nn.ParameterDict()
        self.direction = nn.ParameterList()
        self.needs = Needs(teachers=2, student_taps=(tap,))

    def setup(self, example: Example) -> None:
        """Create the factors; all teachers start with nearly equal weights."""
        student = example.student.features[self.tap]
        for name in example.teachers:
            self.factors[name.replace(".", "_")] = nn.Parameter(1 + 0.01 * torch.randn(student.shape[1]).to(student.device))
        self.direction.append(nn.Parameter(0.01 * torch.randn(student.shape[1]).to(student.device)))

    def forward(self, ctx: LossContext) -> Tensor:
        """Return the mean over the batch."""
        T = ctx.progress.at(self.temperature)
        alpha = full_precision(per_sample(ctx.student.features[self.tap], len(ctx.batch)))
        alpha = alpha.flatten(2).amax(dim=2) if alpha.ndim > 2 else alpha
        factors = torch.stack([self.factors[name.replace(".", "_")] for name in ctx.teachers])
        with torch.autocast(alpha.device.type, enabled=False):
            weights = ((alpha * self.direction[0]) @ factors.T.to(alpha)).log_softmax(dim=1)
        teachers = torch.stack([(self.prepare(each.logits) / T).log_softmax(dim=1) for each in ctx.teachers.values()])
        mixed = (weights.T[:, :, None] + teachers).logsumexp(dim=0)
        return softened_kl(self.prepare(ctx.student.logits) / T, mixed, 1.0).mean() * T**2
