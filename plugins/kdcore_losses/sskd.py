"""Self-supervised distillation: what networks make of transformed inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn
from torch.nn import functional as F

from kdcore import DistillationLoss, Example, LossContext, Needs, Outputs
from kdcore.functional import mean_over_positions, per_sample, softened_kl

COPIES = 3


class SelfSupervised(DistillationLoss):
    """Match the teacher on transformed copies of the inputs: its probabilities, and which samples it finds similar.

    .. math:: L = \\alpha\\, T^2\\, \\mathrm{mean}_i\\, \\mathrm{KL}(p^T(\\tilde x_i) \\| p^S(\\tilde x_i))
        + \\beta\\, \\tau^2\\, \\mathrm{mean}_{i \\in R}\\, \\mathrm{KL}(b^T_i \\| b^S_i) + L_{head}, \\quad
        b_i = \\mathrm{softmax}_j(\\cos(h(f(\\tilde x_i)), h(f(x_j))) / \\tau)

    with three transformed copies :math:`\\tilde x` of each input, features f, and a two-layer head h for each network. R
    contains the copies that the teacher finds most similar to their own input, and a share of the others, in the order of
    how high their own input ranks. :math:`L_{head}`, the cross-entropy between :math:`b^T_i` and the copy's own input,
    trains only the teacher's head. The loss is averaged over teachers. G. Xu, Z. Liu, X. Li, C. C. Loy, "Knowledge
    Distillation Meets Self-Supervision", ECCV 2020, https://arxiv.org/abs/2006.07114. The published objective adds
    ``cross-entropy`` with the weight 0.1 and ``soft-target`` with 0.9. It trains the teacher's head in a stage of its own;
    here the head is trained together with the student.

    Square images are rotated by 90, 180 and 270 degrees, as published. Other images are flipped vertically, horizontally and
    both ways. Sequences are reversed in time, negated, and both; clips are flipped horizontally instead of negated. The student
    and its teachers get the same transforms, so either all of their inputs have a time axis, or none has. The inputs are not
    augmented.

    Args:
        student_tap: The student's features.
        teacher_tap: The teachers' features.
        temperature: T of the probabilities.
        similarity_temperature: τ of the similarities.
        transformed: α, weight of the probabilities.
        similarity: β, weight of the similarities.
        kept: Share of wrongly assigned copies that are used.
        axes: Axis names of the inputs without the batch axis, such as ``[channel, time]``, if they are unknown, as for the
            batches of a data loader.
    """

    def __init__(
        self,
        *,
        student_tap: str = "features",
        teacher_tap: str = "features",
        temperature: Annotated[float, Gt(0)] = 4.0,
        similarity_temperature: Annotated[float, Gt(0)] = 0.5,
        transformed: Annotated[float, Ge(0)] = 2.7,
        similarity: Annotated[float, Gt(0)] = 10.0,
        kept: Annotated[float, Ge(0), Le(1)] = 0.75,
        axes: tuple[str, ...] = (),
    ):
        super().__init__()
        self.student_tap, self.teacher_tap = student_tap, teacher_tap
        self.temperature, self.similarity_temperature = temperature, similarity_temperature
        self.transformed, self.similarity, self.kept = transformed, similarity, kept
        self.axes = axes
        self.heads = nn.ModuleDict()
        self.needs = Needs(teachers=1, forward_passes="all", student_taps=(student_tap,), teacher_taps=(teacher_tap,))

    def setup(self, example: Example) -> None:
        """Create a pair of heads for each teacher."""
        batch = len(example.student.logits)
        for name, teacher in example.teachers.items():
            features = [_features(example.student, self.student_tap, batch), _features(teacher, self.teacher_tap, batch)]
            self.heads[name] = nn.ModuleList(_head(x.shape[1]).to(x.device) for x in features)

    def forward(self, ctx: LossContext) -> Tensor:
        """The weighted sum, averaged over teachers.

        Raises:
            ValueError: If an input has no axis that can be transformed, or only some inputs have a time axis.
        """
        axes = {name: ctx.axes(name) or self.axes for name in ("", *ctx.teachers)}
        if len({"time" in each for each in axes.values()}) > 1:
            raise ValueError(f"sskd transforms all inputs alike, but only some have a time axis: {[*axes.values()]}")
        size = len(ctx.batch)
        student = ctx.forward(transformed_copies(ctx.input(), axes[""]))
        found = []
        for name, teacher in ctx.teachers.items():
            copies = ctx.forward(transformed_copies(ctx.input(name), axes[name]), of=name)
            with torch.autocast(student.logits.device.type, enabled=False):
                head, of_teacher = self.heads[name]  # type: ignore[misc]
                own = _similarities(head, ctx.student, student, self.student_tap, size)
                theirs = _similarities(of_teacher, teacher, copies, self.teacher_tap, size)
                found.append(self._value(student.logits, copies.logits, own, theirs))
        return torch.stack(found).mean()

    def _value(self, student: Tensor, teacher: Tensor, own: Tensor, theirs: Tensor) -> Tensor:
        T, tau = self.temperature, self.similarity_temperature
        positives = torch.arange(own.shape[1], device=own.device).repeat(COPIES)
        chosen = best_ranked(theirs.detach(), positives, self.kept)
        probabilities = T**2 * softened_kl(student, teacher, T).mean()
        similarities = tau**2 * (softened_kl(own, theirs.detach(), tau) * chosen).sum() / chosen.sum()
        of_head = F.cross_entropy(theirs / tau, positives)
        return self.transformed * probabilities + self.similarity * similarities + of_head


def transformed_copies(x: Tensor, axes: Sequence[str]) -> Tensor:
    """Three transformed copies of inputs (B, …), one after the other: (3B, …).

    Args:
        x: Inputs.
        axes: Axis names of `x` without the batch axis.

    Raises:
        ValueError: If there is neither a ``time`` axis, nor ``height`` and ``width``.
    """
    places = {name: number + 1 for number, name in enumerate(axes)}
    if "time" in places:
        mirrored = x.flip(places["width"]) if "width" in places else -x
        copies = [x.flip(places["time"]), mirrored, mirrored.flip(places["time"])]
    elif {"height", "width"} <= set(places):
        plane = places["height"], places["width"]
        square = x.shape[plane[0]] == x.shape[plane[1]]
        copies = [torch.rot90(x, k, plane) for k in (1, 2, 3)] if square else [x.flip(at) for at in (*plane, plane)]
    else:
        hint = "" if axes else "; name them with the option 'axes'"
        raise ValueError(
            f"sskd transforms images and sequences, not inputs with the axes ({', '.join(axes) or 'unknown'}){hint}"
        )
    return torch.cat(copies)


def best_ranked(similarities: Tensor, positives: Tensor, kept: float) -> Tensor:
    """Rows whose positive is the most similar, and a share of the others, in the order of the positive's rank.

    Among equal ranks, the more similar positive comes first, so the order of rows does not matter.

    Args:
        similarities: (R, B).
        positives: (R,) int64, column of each row's positive.
        kept: Share of the other rows.

    Returns:
        (R,) bool, true for at least one row.
    """
    own = similarities.gather(1, positives[:, None])
    ranks = (similarities > own).sum(dim=1)
    right = (ranks == 0).sum()
    count = right + ((len(ranks) - right) * kept).floor()
    places = (ranks - own[:, 0].sigmoid()).argsort().argsort()
    return places < count.clamp_min(1)


def _similarities(head: nn.Module, of_batch: Outputs, of_copies: Outputs, tap: str, size: int) -> Tensor:
    """Cosines of the copies' and the batch's embeddings, (3B, B)."""
    copies = F.normalize(head(_features(of_copies, tap, COPIES * size)), dim=1)
    return copies @ F.normalize(head(_features(of_batch, tap, size)), dim=1).T


def _features(outputs: Outputs, tap: str, batch: int) -> Tensor:
    return mean_over_positions(per_sample(outputs.features[tap], batch))


def _head(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
