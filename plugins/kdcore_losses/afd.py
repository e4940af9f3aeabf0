"""Attention-based feature distillation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from kdcore import EVERY_TARGET, DistillationLoss, Example, LossContext, Needs, Outputs
from kdcore.functional import full_precision, mean_over_positions, per_sample, same_positions, unit_rows
from kdcore_losses.connectors import ChannelNorm
from kdcore_losses.features import require_positions


class AttentiveDistillation(DistillationLoss):
    """Compare maps of activation strength of all pairs of levels, with learnt weights for each sample.

    .. math:: L = \\frac1K \\sum_k \\sum_t \\frac1B \\sum_b \\sum_s \\alpha^b_{ts}\\,
        \\mathrm{mean} \\left(\\frac{Q^b_s}{\\|Q^b_s\\|_2} - \\frac{Q^b_t}{\\|Q^b_t\\|_2}\\right)^2, \\quad
        Q = \\frac1C \\sum_c A_c^2, \\quad
        \\alpha_{ts} = \\mathrm{softmax}_s\\!\\left(\\frac{q_t^\\top k_{st} + p_t^\\top p_s}{\\sqrt d}\\right)

    over K teachers, with t and s levels of teacher and student, q a linear map and batch normalisation of the mean of the
    teacher's activation over positions, k two such layers of the student's with a ReLU in between, and p learnt vectors of
    length d. M. Ji, B. Heo, S. Park, "Show, Attend and Distill: Knowledge Distillation via Attention-based Feature Matching",
    AAAI 2021, https://arxiv.org/abs/2102.02973; the form of q, k and p is that of the authors' code, which weights the term
    by 200. To match shapes, persons and frames are averaged, surplus position axes are averaged, and each axis is
    average-pooled to the shorter side's length, all after the maps are taken; numbers of channels may differ.

    Args:
        teacher_taps: The teacher's levels.
        student_taps: The student's levels, two at least.
        size: d, the length of queries and keys.

    Raises:
        ValueError: If there is no level of the teacher, or fewer than two of the student.
    """

    targets = EVERY_TARGET

    def __init__(
        self,
        *,
        teacher_taps: Sequence[str],
        student_taps: Sequence[str],
        size: Annotated[int, Ge(1)] = 128,
    ):
        super().__init__()
        if not teacher_taps:
            raise ValueError("give at least one tap of the teacher")
        if len(student_taps) < 2:
            raise ValueError("give at least two taps of the student; for a single one, use attention-transfer")
        self.teacher_taps, self.student_taps, self.size = tuple(teacher_taps), tuple(student_taps), size
        self.needs = Needs(teachers=1, student_taps=self.student_taps, teacher_taps=self.teacher_taps)
        self.links = nn.ModuleDict()

    def setup(self, example: Example) -> None:
        """Create the attention for every teacher.

        Raises:
            ValueError: If two levels share fewer than two positions.
        """
        batch = len(example.student.logits)
        own = self._levels(example.student, self.student_taps, batch)
        for name, outputs in example.teachers.items():
            theirs = self._levels(outputs, self.teacher_taps, batch)
            for student in own:
                for teacher in theirs:
                    require_positions("afd", student, teacher)
            links = Links([x.shape[1] for x in own], [x.shape[1] for x in theirs], self.size)
            self.links[_key(name)] = links.to(own[0].device)

    def forward(self, ctx: LossContext) -> Tensor:
        """Return the sum over the teacher's levels, averaged over teachers and samples."""
        own = self._levels(ctx.student, self.student_taps, len(ctx.batch))
        with torch.autocast(own[0].device.type, enabled=False):
            terms = []
            for name, outputs in ctx.teachers.items():
                theirs = self._levels(outputs, self.teacher_taps, len(ctx.batch))
                pooled = [[mean_over_positions(x) for x in levels] for levels in (own, theirs)]
                apart = torch.stack([torch.stack([_apart(s, t) for s in own], dim=1) for t in theirs], dim=1)
                terms.append((self.links[_key(name)](*pooled) * apart).sum(dim=(1, 2)).mean())
            return torch.stack(terms).mean()

    def _levels(self, outputs: Outputs, taps: Sequence[str], batch: int) -> list[Tensor]:
        return [full_precision(per_sample(outputs.features[tap], batch)) for tap in taps]


class Links(nn.Module):
    """Weights of the student's levels for each level of a teacher.

    Args:
        student: Channels of the student's levels.
        teacher: Channels of the teacher's levels.
        size: Length of queries and keys.
    """

    def __init__(self, student: Sequence[int], teacher: Sequence[int], size: int):
        super().__init__()
        self.queries = nn.ModuleList(nn.Sequential(nn.Linear(width, size, bias=False), ChannelNorm(size)) for width in teacher)
        self.keys = nn.ModuleList(
            nn.Sequential(nn.Linear(width, size, bias=False), ChannelNorm(size), nn.ReLU()) for width in student
        )
        outputs = size * len(teacher)
        self.bilinear = nn.Sequential(nn.Linear(size, outputs, bias=False), ChannelNorm(outputs))
        self.teacher_position = nn.Parameter(nn.init.xavier_normal_(torch.empty(len(teacher), size)))
        self.student_position = nn.Parameter(nn.init.xavier_normal_(torch.empty(len(student), size)))

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Return weights (B, teacher's levels, student's levels), given the means of activations over positions."""
        query = torch.stack([layer(x) for layer, x in zip(self.queries, teacher, strict=True)], dim=1)
        key = torch.stack([layer(x) for layer, x in zip(self.keys, student, strict=True)], dim=1)
        key = self.bilinear(key.flatten(0, 1)).view(*key.shape[:2], len(teacher), -1)
        fit = torch.einsum("bstd,btd->bts", key, query) + self.teacher_position @ self.student_position.T
        return (fit / math.sqrt(query.shape[2])).softmax(dim=2)


def _apart(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of normalised maps, (B,)."""
    one, other = same_positions(*(x.square().mean(dim=1, keepdim=True) for x in (student, teacher)))
    return F.mse_loss(unit_rows(one), unit_rows(other), reduction="none").mean(dim=1)


def _key(teacher: str) -> str:
    return teacher.replace(".", "_")
