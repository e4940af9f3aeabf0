"""Softmax regression representation learning."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdcore import EVERY_TARGET, DistillationLoss, Example, LossContext, Needs
from kdcore.functional import full_precision, mean_over_positions, per_sample
from kdcore_losses.connectors import Connector


class SoftmaxRegression(DistillationLoss):
    """Classify the student's features with the teacher's classifier, and match the teacher's logits.

    .. math:: L = \\frac1{B K} \\sum_{b,k} \\left((W_T\\, r(h_S) + b_T)_{bk} - z^T_{bk}\\right)^2

    averaged over teachers, with :math:`h_S` the student's features (B, C), :math:`W_T, b_T` the teacher's last linear
    layer, which is not trained, and :math:`z^T` its logits for K classes. The connector r, a linear map without bias, batch
    normalisation and ReLU, leads to the teacher's width and is trained with the student. J. Yang, B. Martinez, A. Bulat, G.
    Tzimiropoulos, "Knowledge Distillation via Softmax Regression Representation Learning", ICLR 2021,
    https://openreview.net/forum?id=ZzwDy_wiWv: the L2 loss of the abstract, and the connector of the authors' code, where
    its weight is 1. Their second term, which matches the features themselves, is ``fitnet``.

    Positions of features are averaged. The student needs the features before its classifier as a tap; the teacher needs none.

    Args:
        student_tap: The student's features before its classifier.
        relu: End the connector with a ReLU. Set it to False for a teacher whose classifier reads features of both signs.
    """

    targets = EVERY_TARGET

    def __init__(self, *, student_tap: str = "features", relu: bool = True):
        super().__init__()
        self.student_tap, self.relu = student_tap, relu
        self.connectors = nn.ModuleDict()
        self.needs = Needs(teachers=1, classifiers=True, student_taps=(student_tap,))

    def setup(self, example: Example) -> None:
        """Create a connector for each teacher.

        Raises:
            ValueError: If a teacher's classifier was not given.
        """
        features = self._features(example.student.features[self.student_tap], len(example.student.logits))
        for name, teacher in example.teachers.items():
            if teacher.classifier is None:
                raise ValueError("srrl reads classifiers: kdcore.Outputs(…, classifier=kdcore.Classifier(weight, bias))")
            self.connectors[name] = Connector(features.shape[1], teacher.classifier.weight.shape[1]).to(features)

    def forward(self, ctx: LossContext) -> Tensor:
        """Return the mean over teachers, samples and classes."""
        found = []
        with torch.autocast(ctx.student.logits.device.type, enabled=False):
            features = self._features(ctx.student.features[self.student_tap], len(ctx.batch))
            for name, teacher in ctx.teachers.items():
                assert teacher.classifier is not None
                own = self.connectors[name](features)
                own = own.relu() if self.relu else own
                weight, bias = full_precision(teacher.classifier.weight), full_precision(teacher.classifier.bias)
                found.append(F.mse_loss(F.linear(own, weight, bias), full_precision(teacher.logits)))
        return torch.stack(found).mean()

    @staticmethod
    def _features(x: Tensor, batch: int) -> Tensor:
        """(B, C) means over positions, in float32 at least."""
        return mean_over_positions(full_precision(per_sample(x, batch)))
