"""Factor transfer."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn
from torch.nn import functional as F

from kdcore import Example, LossContext
from kdcore.functional import full_precision, same_positions, unit_rows
from kdcore_losses.connectors import convolution
from kdcore_losses.features import DEFAULT, FeatureLoss, Pairs


class FactorTransfer(FeatureLoss):
    """Compare factors that an autoencoder extracts from the teacher with those that a translator extracts from the student.

    .. math:: L = \\mathrm{mean} \\left|\\frac{f_T}{\\|f_T\\|_2} - \\frac{f_S}{\\|f_S\\|_2}\\right|
        + \\mathrm{mean} \\left(t - D(f_T)\\right)^2, \\quad f_T = P(t),\\; f_S = R(s)

    per sample, with the paraphraser P and its decoder D, and the translator R, of three convolutions each. The first term
    trains R and the student, the second P and D. By default, both terms are used from the start, so the factors change in the
    first epochs. The paper trains P in a stage of its own: with `paraphraser_epochs`, the loss is the second term alone for
    that many epochs, and the first term alone afterwards, with P frozen. J. Kim, S. Park, N. Kwak, "Paraphrasing Complex
    Network: Network Compression via Factor Transfer", NeurIPS 2018, https://arxiv.org/abs/1802.04977. To match shapes, persons
    and frames are averaged, surplus position axes are averaged, and each axis is average-pooled to the shorter side's length;
    numbers of channels may differ.

    Args:
        pairs: Pairs of (teacher's tap, student's tap).
        rate: Channels of the factors, as a share of the teacher's.
        paraphraser_epochs: Epochs in which only the paraphraser is trained, 0 to train it together with the student. The
            student's other terms are used in these epochs too. A run then notes that the term has no gradient for the student
            in these epochs and none for the paraphraser later, as intended.
    """

    def __init__(
        self,
        *,
        pairs: Pairs = DEFAULT,
        rate: Annotated[float, Gt(0), Le(1)] = 0.5,
        paraphraser_epochs: Annotated[int, Ge(0)] = 0,
    ):
        super().__init__(pairs)
        self.rate = rate
        self.paraphraser_epochs = paraphraser_epochs
        self.epoch = 0
        self.paraphrasers = nn.ModuleDict()
        self.decoders = nn.ModuleDict()
        self.translators = nn.ModuleDict()

    def setup(self, example: Example) -> None:
        """Create paraphraser, decoder and translator for every teacher and pair.

        Raises:
            ValueError: If activations have more than three position axes.
        """
        for key, student, teacher in self.examples(example):
            width = max(1, round(self.rate * teacher.shape[1]))
            axes = min(student.ndim, teacher.ndim) - 2
            self.paraphrasers[key] = _three(teacher.shape[1], width, width, axes).to(student.device)
            self.decoders[key] = _three(width, teacher.shape[1], teacher.shape[1], axes).to(student.device)
            self.translators[key] = _three(student.shape[1], width, width, axes).to(student.device)

    def forward(self, ctx: LossContext) -> Tensor:
        """Return the mean over teachers and pairs."""
        self.epoch = ctx.progress.epoch
        return super().forward(ctx)

    def compare(self, key: str, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the sum of both terms, or the one of this epoch."""
        student, teacher = same_positions(student, teacher)
        factors = self.paraphrasers[key](teacher)
        terms = []
        if not self.paraphraser_epochs or self.epoch >= self.paraphraser_epochs:
            teacher_factors, student_factors = full_precision(factors.detach()), full_precision(self.translators[key](student))
            with torch.autocast(student_factors.device.type, enabled=False):
                terms.append(F.l1_loss(unit_rows(student_factors), unit_rows(teacher_factors)))
        if not self.paraphraser_epochs or self.epoch < self.paraphraser_epochs:
            terms.append(F.mse_loss(full_precision(self.decoders[key](factors)), full_precision(teacher)))
        return sum(terms[1:], terms[0])


def _three(inputs: int, hidden: int, outputs: int, axes: int) -> nn.Module:
    first, second = convolution(inputs, inputs, axes), convolution(inputs, hidden, axes)
    return nn.Sequential(first, nn.LeakyReLU(0.1), second, nn.LeakyReLU(0.1), convolution(hidden, outputs, axes))
