"""The divergence between two networks' softened probabilities, either way round."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

Direction = Literal["printed", "hinton"]


def divergence(student: Tensor, other: Tensor, temperature: float, direction: Direction) -> Tensor:
    """KL(student ‖ other) as the paper prints it, or KL(other ‖ student) as Hinton has it; mean over the batch.

    Args:
        student: Logits (B, C) that carry the graph.
        other: Logits (B, C) of the teacher or peer.
        temperature: Divides both.
        direction: Which way round.

    Returns:
        A scalar.
    """
    student, other = (F.log_softmax(logits / temperature, dim=1) for logits in (student, other))
    about, reference = (student, other) if direction == "printed" else (other, student)
    return F.kl_div(reference, about, log_target=True, reduction="batchmean")
