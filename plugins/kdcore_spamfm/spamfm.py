"""The similarity-preserving adaptive multi-modal fusion module of one layer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add, mul
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdcore.functional import gram_similarities, in_full_precision, mean_over_positions

Variant = Literal["paper", "official"]

_linear = in_full_precision(F.linear)


class Spamfm(nn.Module):
    r"""Recalibrates the channels of m teachers' activations at one layer by what all of them see there.

    With :math:`A_k` the activations, :math:`G_k` their `gram_similarities` over the batch, :math:`S_k` their means over all
    positions and :math:`P_k = G_k S_k`:

    .. math::
        Z_{con} &= W_{con1} [P_1, \ldots, P_m] + b, \quad
        Z_{sum} = W_{sum1} \textstyle\sum_k P_k + b, \quad
        Z_{had} = W_{had1} \textstyle\prod_k P_k + b \\
        \tilde A_k &= \textstyle\sum_r \mathrm{ReLU}(W_{r2,k} Z_r + b) \odot A_k, \quad r \in \{con, sum, had\}

    with :math:`c_{con} = \sum c_k / 2m` and :math:`c_{sum} = c_{had} = c_k`; the maps to Z are shared by the teachers. The
    ``official`` form of the published code has bottlenecks of :math:`\lfloor \sum c_k / r \rfloor` and :math:`\lfloor c_k / r
    \rfloor`, maps to Z for each teacher on its own, a ReLU after them, and a sigmoid in place of the last ReLU.

    Gates are computed in float32 at least, whatever the precision of activations and parameters: products of several P_k
    overflow half precision.

    Source: Liu et al., Semantics-aware Adaptive Knowledge Distillation (TIP 2021, https://arxiv.org/abs/2009.00210), Eqs.
    (4)-(13).

    Args:
        channels: c_k of every teacher.
        variant: As printed, or as in the published code.
        reduction: r of the official form; 2m by default, which gives its 4, 8 and 12 for 2, 4 and 6 teachers.
        projection: Where the c_k differ, map each P_k to the largest of them by a learned matrix, so that sum and
            product exist.

    Raises:
        ValueError: If the c_k differ and `projection` is off.
    """

    def __init__(
        self, channels: Sequence[int], variant: Variant = "paper", reduction: int | None = None, projection: bool = False
    ):
        super().__init__()
        if len(set(channels)) > 1 and not projection:
            raise ValueError(f"sum and Hadamard product need equal numbers of channels, not {tuple(channels)}")
        width, total = max(channels), sum(channels)
        self.project = nn.ModuleList(nn.Identity() if c == width else Linear(c, width, bias=False) for c in channels)
        bottleneck, joint = width, total // (2 * len(channels))
        if variant == "official":
            reduction = reduction or 2 * len(channels)
            bottleneck, joint = width // reduction, total // reduction
        self.con = Excitation(total, max(1, joint), channels, variant)
        self.sum = Excitation(width, max(1, bottleneck), channels, variant)
        self.had = Excitation(width, max(1, bottleneck), channels, variant)

    def forward(self, activations: Sequence[Tensor]) -> list[Tensor]:
        """The recalibrated activations, shaped as they were.

        Args:
            activations: (B, c_k, …) of every teacher; positions may differ in number, or be absent.
        """
        gates = self.gates([pooled(each) for each in activations])
        return [each * _over_positions(gate, each) for each, gate in zip(activations, gates, strict=True)]

    def gates(self, pooled: Sequence[Tensor]) -> list[Tensor]:
        """Factors of each teacher's channels, (B, c_k), from all P_k."""
        met = [project(each) for project, each in zip(self.project, pooled, strict=True)]
        signals = self.con(torch.cat(list(pooled), dim=1)), self.sum(reduce(add, met)), self.had(reduce(mul, met))
        return [reduce(add, each) for each in zip(*signals, strict=True)]


class Linear(nn.Linear):
    """A linear layer computed in float32 at least."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, in_features) → (B, out_features)."""
        return _linear(input, self.weight, self.bias)


class Excitation(nn.Module):
    """Squeezes one joint representation and predicts every teacher's excitation signal from it.

    Args:
        inputs: Width of the joint representation.
        hidden: Width after squeezing.
        channels: c_k of every teacher.
        variant: As of `Spamfm`.
    """

    def __init__(self, inputs: int, hidden: int, channels: Sequence[int], variant: Variant):
        super().__init__()
        self.official = variant == "official"
        self.squeeze = nn.ModuleList(Linear(inputs, hidden) for _ in (channels if self.official else [0]))
        self.excite = nn.ModuleList(Linear(hidden, c) for c in channels)

    def forward(self, joint: Tensor) -> list[Tensor]:
        """Signals (B, c_k) of every teacher from `joint` (B, inputs)."""
        if self.official:
            pairs = zip(self.squeeze, self.excite, strict=True)
            return [excite(squeeze(joint).relu()).sigmoid() for squeeze, excite in pairs]
        squeezed = self.squeeze[0](joint)
        return [excite(squeezed).relu() for excite in self.excite]


@in_full_precision
def pooled(activation: Tensor) -> Tensor:
    """P (B, c): means over positions, mixed over the batch by the similarity of samples."""
    means = mean_over_positions(activation)
    return gram_similarities(activation) @ means


def _over_positions(gate: Tensor, activation: Tensor) -> Tensor:
    return gate.to(activation.dtype).reshape(gate.shape + (1,) * (activation.dim() - 2))
