"""The inputs that a loss declares it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Needs:
    """The inputs that a loss needs, checked before the first step.

    Args:
        labels: Reads labels.
        teachers: How many teachers it needs at least. A term that needs one is left out of the baseline.
        peers: How many other students it needs at least.
        class_embeddings: Reads the class-embedding table.
        ablated: Reads outputs for all-zero inputs: ``single`` (one, on running statistics) or ``mixed``
            (as many as the batch, in the same forward pass as the batch).
        student_taps: Taps the student must have.
        teacher_taps: Taps every teacher must have.
    """

    labels: bool = False
    teachers: int = 0
    peers: int = 0
    class_embeddings: bool = False
    ablated: Literal["single", "mixed"] | None = None
    student_taps: tuple[str, ...] = ()
    teacher_taps: tuple[str, ...] = ()
