"""Teacher fusion: runs several teachers together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from kdcore.contracts.batch import Batch, Outputs
from kdcore.contracts.encoder import Participant
from kdcore.contracts.target import EVERY_TARGET, TargetKind


class TeacherFusion(nn.Module):
    """Runs all teachers of a recipe. This base class runs each on its own.

    A subclass may exchange features between teachers. Its parameters are trained and frozen together with the teachers.

    Attributes:
        batch_dependent: True if a sample's outputs depend on the other samples of its batch. Such outputs are never
            cached per sample, and evaluation uses the recipe's batch size.
        taps: Names of features that it adds to the outputs of every teacher; losses may need them as teachers' taps.
        targets: Supported kinds of targets; ``("classes",)`` for a fusion that takes a softmax of logits.
    """

    batch_dependent: ClassVar[bool] = False
    taps: tuple[str, ...] = ()
    targets: tuple[TargetKind, ...] = EVERY_TARGET

    def setup(self, teachers: Mapping[str, Participant], batch: Batch) -> None:
        """Create parameters that depend on the teachers' shapes; called once, before training, in eval mode.

        Raises:
            ValueError: If these teachers cannot be fused, saying why.
        """

    def forward(self, teachers: Mapping[str, Participant], batch: Batch) -> dict[str, Outputs]:
        """Outputs of every teacher for `batch`."""
        return {name: teacher(batch.signals[name]) for name, teacher in teachers.items()}
