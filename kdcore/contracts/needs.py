"""Needs: a loss's declaration of the inputs it requires."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Needs:
    """Inputs that a loss requires; checked for every learner before training.

    Args:
        labels: Reads labels. Where only some samples are labelled, the term is computed on those. With ``optional`` it is
            computed on all samples: unknown classes are -1, unknown labels and values NaN, also where labels are withheld.
        teachers: Minimum number of teachers. A term that needs one is left out of the baseline.
        peers: Minimum number of peers. A term that needs one is left out of the baseline.
        class_embeddings: Reads the class-embedding table.
        ablated: Reads outputs for all-zero inputs: ``single`` (one input, with running statistics) or ``mixed`` (a batch of
            them, in the same forward pass as the batch).
        student_taps: Taps that the learner must have.
        teacher_taps: Taps that every teacher must have.
        peer_taps: Taps that every peer must have.
        forward_passes: Runs networks on inputs of its own with `LossContext.forward`: ``student`` for the learner only, ``all``
            for its teachers and peers, too. Requires a single process, and excludes ``data.mix``.
        classifiers: Reads `Outputs.classifier` of the learner and its sources. A network whose logits are not the output of a
            linear layer is refused.
        every_class: Reads the logits of all classes of the run. The logits of a teacher are minus infinity for classes that it
            lacks. By default, a term is computed among the classes that all of its networks know.
        baseline: Whether the term belongs to the baseline's objective. Set it to False for distillation that needs neither
            teachers nor peers, such as self-distillation.
    """

    labels: bool | Literal["optional"] = False
    teachers: int = 0
    peers: int = 0
    class_embeddings: bool = False
    ablated: Literal["single", "mixed"] | None = None
    student_taps: tuple[str, ...] = ()
    teacher_taps: tuple[str, ...] = ()
    peer_taps: tuple[str, ...] = ()
    forward_passes: Literal["student", "all"] | None = None
    classifiers: bool = False
    every_class: bool = False
    baseline: bool = True

    @property
    def labelled(self) -> bool:
        """True if the term is computed on labelled samples only."""
        return self.labels is True

    @property
    def in_baseline(self) -> bool:
        """True if a student trained without distillation keeps the term."""
        return self.baseline and not self.teachers and not self.peers
