"""Graph-guided semantically discriminative mapping as a loss."""

from __future__ import annotations

import logging
from typing import Annotated, Literal

import torch
from annotated_types import MinLen
from torch import Tensor

from kdcore import DistillationLoss, Example, LossContext, Needs, Outputs
from kdcore.functional import full_precision, mean_over_frames
from kdcore_gsdm.maps import (
    Embedding,
    Normalisation,
    affinity,
    distance,
    frame_maps,
    importance,
    official_distance,
    semantic_embedding,
    semantic_map,
)

_log = logging.getLogger(__name__)

Pairs = Annotated[tuple[tuple[str, str], ...], MinLen(1)]
"""Pairs of (teacher's tap, student's tap)."""

COARSEST = 6
"""Positions along the shorter side that a map which is drawn should have at least."""

Graph = Literal["features", "embedding", "none"]
Omega = Literal["adaptive", "scalar"]


class GraphGuidedSemanticMaps(DistillationLoss):
    r"""Match activation maps, with channels weighted by how an all-zero input changes the class semantics.

    .. math::
        F &= \mathrm{softmax}(z) E, \quad \omega = (QF - Q_aF_a) / QF, \quad M_l = \mathrm{ReLU}(\textstyle\sum_p \omega_p
        A_{l,p}) \\
        L &= \frac{1}{m N} \sum_k \sum_{(l_T, l_S)} \frac1B \sum_b
        \left\| \frac{M^{T_k}_{l_T}}{\|M^{T_k}_{l_T}\|_2} - \frac{M^S_{l_S}}{\|M^S_{l_S}\|_2} \right\|_2^2

    E are the class embeddings, Q is the graph of the batch's final features, and a marks the same for an all-zero input; ω is
    pooled adaptively to the channels of the map. Everything is differentiable with respect to the student: its activations,
    its logits and its features. Maps of different sizes are interpolated bilinearly to the smaller height and width. The map of
    a clip is the mean over its frames, and features of frames are averaged. An activation with only a time axis has a map of
    one row.

    The ``official`` variant follows the published code: black inputs in the same batch as the real ones (`Needs.ablated` is
    ``mixed``), the embedding of the most probable class, no graph, one weight per sample (the mean of ω), maps scaled to [0, 1]
    over the batch, columns of unit length, mean over all entries. It differs from that code in two points: the code computes in
    NumPy, so its term has no gradient, and it resizes maps by repeating and cropping values; here the student's maps keep their
    gradient, and are resized bilinearly.

    Train with ``engine.precision: 32-true``. The maps themselves are computed in float32 at least, but ω has a pole where QF
    is zero, so a network whose logits are rounded to bfloat16 can send the gradient elsewhere; the loss warns once.

    Source: Liu et al., Semantics-aware Adaptive Knowledge Distillation (TIP 2021, https://arxiv.org/abs/2009.00210), Eqs.
    (14)-(17).

    Args:
        pairs: Pairs of (teacher's tap, student's tap) whose maps are compared.
        student_feature: Tap of the student's final fully connected features, for the graph.
        teacher_feature: The same tap of every teacher.
        variant: Defaults of the other options, and how maps are compared.
        embedding: ``soft`` as above, or ``argmax``, the embedding of the most probable class; ``argmax`` if official.
        graph: What Q compares: final ``features``, the ``embedding`` F itself, or ``none`` for Q = I; ``none`` if official.
        normalisation: Q = D^-½ W D^-½ (``sym``), or with D^½ first, as the paper prints it.
        omega: Pooled to every map's channels (``adaptive``), or its mean, a ``scalar``; ``scalar`` if official. With
            a scalar and non-negative activations the normalised map depends on ω's sign alone.
    """

    def __init__(
        self,
        *,
        pairs: Pairs,
        student_feature: str = "fc0",
        teacher_feature: str = "fc2",
        variant: Literal["paper", "official"] = "paper",
        embedding: Embedding | None = None,
        graph: Graph | None = None,
        normalisation: Normalisation = "sym",
        omega: Omega | None = None,
    ):
        super().__init__()
        official = variant == "official"
        self.pairs = [(teacher, student) for teacher, student in pairs]
        self.student_feature, self.teacher_feature = student_feature, teacher_feature
        self.embedding: Embedding = embedding or ("argmax" if official else "soft")
        self.graph: Graph = graph or ("none" if official else "features")
        self.normalisation: Normalisation = normalisation
        self.omega: Omega = omega or ("scalar" if official else "adaptive")
        self.distance = official_distance if official else distance
        self._warned = False
        final = self.graph == "features"
        self.needs = Needs(
            teachers=1,
            class_embeddings=True,
            ablated="mixed" if official else "single",
            student_taps=_unique([student for _, student in self.pairs] + [student_feature] * final),
            teacher_taps=_unique([teacher for teacher, _ in self.pairs] + [teacher_feature] * final),
        )

    def setup(self, example: Example) -> None:
        """Check that the taps of `pairs` have positions.

        Raises:
            ValueError: If an activation has channels alone.
        """
        for of_teacher, of_student in self.pairs:
            taps = {f"teacher {name!r}": (of_teacher, teacher) for name, teacher in example.teachers.items()}
            for who, (tap, outputs) in {**taps, "the student": (of_student, example.student)}.items():
                if outputs.features[tap].dim() < 3:
                    shape = tuple(outputs.features[tap].shape)
                    raise ValueError(f"gsdm: tap {tap!r} of {who} has no map: its shape is {shape}, not (batch, channels, …)")

    def forward(self, ctx: LossContext) -> Tensor:
        """The mean over teachers and pairs."""
        table = ctx.class_embeddings
        if table is None:
            raise ValueError("gsdm needs class embeddings")
        self._warn_of_half_precision(ctx.student.logits)
        with torch.autocast(table.device.type, enabled=False):
            own = self._maps(ctx.student, [student for _, student in self.pairs], self.student_feature, table)
            theirs = [
                self._maps(each, [teacher for teacher, _ in self.pairs], self.teacher_feature, table)
                for each in ctx.teachers.values()
            ]
            terms = [self.distance(*pair) for maps in theirs for pair in zip(maps, own, strict=True)]
            return torch.stack(terms).mean()

    def _warn_of_half_precision(self, logits: Tensor) -> None:
        device = logits.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else logits.dtype
        if not self._warned and dtype in (torch.float16, torch.bfloat16):
            self._warned = True
            _log.warning(
                "gsdm: the networks compute in %s. Where QF is near zero, rounding their logits can turn the gradient of this "
                "loss; train with engine.precision: 32-true",
                str(dtype).removeprefix("torch."),
            )

    def maps(self, outputs: Outputs, role: Literal["student", "teacher"], class_embeddings: Tensor | None) -> dict[str, Tensor]:
        """The frames' maps at the last of `pairs` where they are not too coarse to be looked at; ω as in training."""
        if class_embeddings is None or outputs.ablated is None:
            return {}
        taps = [pair[role == "student"] for pair in self.pairs]
        omega = self.slope(outputs, self.student_feature if role == "student" else self.teacher_feature, class_embeddings)
        drawn = {tap: frame_maps(full_precision(outputs.features[tap]), omega) for tap in taps}
        sizes = {tap: min(each.shape[-2:]) for tap, each in drawn.items()}
        finest = min(COARSEST, max(sizes.values()))
        tap = next(tap for tap in reversed(taps) if sizes[tap] >= finest)
        found = drawn[tap]
        return {f"gsdm, {tap}": found[:, 0] if found.shape[1] == 1 else found}

    def _maps(self, outputs: Outputs, taps: list[str], feature: str, table: Tensor) -> list[Tensor]:
        omega = self.slope(outputs, feature, table)
        return [semantic_map(full_precision(outputs.features[tap]), omega) for tap in taps]

    def slope(self, outputs: Outputs, feature: str, table: Tensor) -> Tensor:
        """ω of one participant, (B, D), or (B, 1) where it is a scalar."""
        if outputs.ablated is None:
            raise ValueError("gsdm needs outputs for all-zero inputs")
        batch = len(outputs.logits)
        omega = importance(
            self._semantics(outputs, feature, table, batch), self._semantics(outputs.ablated, feature, table, batch)
        )
        return omega.mean(dim=1, keepdim=True) if self.omega == "scalar" else omega

    def _semantics(self, outputs: Outputs, feature: str, table: Tensor, batch: int) -> Tensor:
        """QF, (batch, D); a single answer to an all-zero input stands for `batch` equal ones."""
        logits = full_precision(outputs.logits)
        F = semantic_embedding(logits, table.to(logits.dtype), self.embedding).expand(batch, -1)
        if self.graph == "none":
            return F
        points = F if self.graph == "embedding" else mean_over_frames(outputs.features[feature], len(logits))
        return affinity(points.expand(batch, -1), self.normalisation) @ F


def _unique(names: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
