"""Graph distillation: weights of modalities per sample."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from kdcore import DistillationLoss, Example, LossContext, Needs, Outputs
from kdcore.functional import full_precision, mean_over_positions, per_sample


class GraphDistillation(DistillationLoss):
    """Imitation of several teachers' logits and features, each teacher weighted per sample by a learnt edge of a graph.

    .. math:: L = \\frac1B \\sum_b \\sum_k \\left(e_{bk} + \\tfrac1K\\right) \\left(\\lambda_z\\, d(z^S_b, z^k_b)
        + \\lambda_f\\, d(f^S_b, f^k_b)\\right) + \\lambda_e \\sum_k \\left(\\bar e_k - \\tfrac1K\\right)^2

    with :math:`d(x, y) = 1 - \\cos(x, y)`, edges :math:`e_{bk} = \\mathrm{softmax}_k(\\alpha\\, w^\\top u^k_b)` from
    embeddings :math:`u = [W_z z; W_f f]` of the teachers that are learnt too, and :math:`\\bar e` the mean over the batch. The
    paper's edges also read the student's embedding, which cancels in the softmax. Z. Luo et al., "Graph Distillation for
    Action Detection with Privileged Modalities", ECCV 2018, https://arxiv.org/abs/1712.00108, with the uniform prior and its
    regularisation as in the authors' code. To match shapes, persons, frames and positions of features are averaged; the
    numbers of channels must be equal.

    Args:
        tap: Tap of the features, of the student and of every teacher; not needed where `features` is 0.
        logits: λ_z.
        features: λ_f.
        edges: λ_e, which prevents the weights from converging to the teacher that is easiest to imitate.
        sharpness: α.
        size: Length of the embedding of logits, and of that of features.
    """

    def __init__(
        self,
        *,
        tap: str = "features",
        logits: Annotated[float, Ge(0)] = 1.0,
        features: Annotated[float, Ge(0)] = 0.05,
        edges: Annotated[float, Ge(0)] = 10.0,
        sharpness: Annotated[float, Gt(0)] = 0.125,
        size: Annotated[int, Ge(1)] = 32,
    ):
        super().__init__()
        self.tap = tap
        self.logits = logits
        self.features = features
        self.edges = edges
        self.sharpness = sharpness
        self.size = size
        self.embed = nn.ModuleList()
        taps = (tap,) if features else ()
        self.needs = Needs(teachers=2, student_taps=taps, teacher_taps=taps)

    def setup(self, example: Example) -> None:
        """Create the embeddings of logits and features, and the edges.

        Raises:
            ValueError: If the features of student and teachers have different numbers of channels.
        """
        device, batch = example.student.logits.device, len(example.student.logits)
        widths = [example.num_classes]
        if self.features:
            channels = {name: self._parts(each, batch)[-1].shape[1] for name, each in example.teachers.items()}
            own = self._parts(example.student, batch)[-1].shape[1]
            if set(channels.values()) != {own}:
                raise ValueError(
                    f"features have {own} channels and teachers' {channels}: make them equal, or set features to 0"
                )
            widths.append(own)
        self.embed.extend(nn.Linear(width, self.size, bias=False).to(device) for width in widths)
        self.edge = nn.Linear(self.size * len(widths), 1, bias=False).to(device)

    def forward(self, ctx: LossContext) -> Tensor:
        """Return the weighted sum over teachers, averaged over the batch."""
        size = len(ctx.batch)
        student, teachers = self._parts(ctx.student, size), [self._parts(each, size) for each in ctx.teachers.values()]
        with torch.autocast(student[0].device.type, enabled=False):
            scores = [self.edge(self._embedding(each)) for each in teachers]
            edges = (self.sharpness * torch.cat(scores, dim=1)).softmax(dim=1)
            distances = torch.stack([self._distance(student, each) for each in teachers], dim=1)
            uneven = (edges.mean(dim=0) - 1 / len(teachers)).square().sum()
            return ((edges + 1 / len(teachers)) * distances).sum(dim=1).mean() + self.edges * uneven

    def _parts(self, outputs: Outputs, batch: int) -> list[Tensor]:
        """Logits, and features without positions where they are read."""
        parts = [full_precision(outputs.logits)]
        if self.features:
            parts.append(mean_over_positions(per_sample(outputs.features[self.tap], batch)))
        return parts

    def _embedding(self, parts: list[Tensor]) -> Tensor:
        return torch.cat([embed(each) for embed, each in zip(self.embed, parts, strict=True)], dim=1)

    def _distance(self, student: list[Tensor], teacher: list[Tensor]) -> Tensor:
        weights = (self.logits, self.features)
        found = [w * (1 - F.cosine_similarity(a, b, dim=1)) for w, a, b in zip(weights, student, teacher, strict=False)]
        return torch.stack(found).sum(dim=0)
