"""Warns if several processes are slower than one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdcore.contracts.progress import Progress
from kdcore.training.phases import BACKWARD, OWN, Phases
from kdcore.training.randomness import random_state, restore_random_state
from kdcore.training.step import StageStep

if TYPE_CHECKING:
    from lightning_fabric import Fabric

STEPS = 2
"""Steps that are timed in one process, after one that warms up."""

FEWEST = 4
"""Steps in several processes that must have been timed: the mean of fewer is often wrong."""

SLOWER = 1.1
"""Smallest ratio of the two times that is reported."""


class ProcessCheck:
    """Compares the times of a training step in several processes and in one.

    Before a stage, every process computes the objective and its gradients on the first whole batches, without communication.
    That is a step of a single process, without the optimizer. After an epoch, the mean time is compared with that of the
    training steps, which share the batch and communicate. All processes compute at the same time, as in training, so a process
    that has the machine to itself is at least as fast as measured here. Each set of learners is checked once, if the stage is
    long enough. Gradient rules other than the sum are not checked, nor are batches that do not fit in the memory of one device.

    Args:
        shortest: Training steps per process of a stage below which it is not checked. The check takes at most ``3 / shortest``
            of a stage's time, since a step in one process takes at most as long as all shares of its batch.
    """

    def __init__(self, shortest: int = 100):
        self.shortest = shortest
        self._checked: set[tuple[str, ...]] = set()
        self._alone: float | None = None

    def begin_stage(self, step: StageStep, rows: Tensor, batch_size: int, steps: int, fabric: Fabric) -> None:
        """Time a stage's step in one process. Weights, buffers and random state are left unchanged.

        Args:
            step: The stage's objective, before DDP wraps it.
            rows: (n,) int64, the training rows.
            batch_size: Rows per step, summed over all processes.
            steps: Training steps of the stage.
            fabric: Devices, precision, processes.
        """
        self._alone = None
        learners = step.stage.learners
        if steps < self.shortest * fabric.world_size or learners in self._checked or step.balanced:
            return
        self._checked.add(learners)
        batches = [rows.roll(-index * batch_size)[:batch_size] for index in range(1 + STEPS)]
        try:
            self._alone = self._seconds(step, batches, fabric)
        except torch.cuda.OutOfMemoryError:  # a batch that needs the memory of several devices
            return

    def warning(self, stage: str, phases: Phases, batch_size: int, processes: int) -> str:
        """A sentence for the user if the timed steps of a stage were slower than those in one process; empty if not.

        Args:
            stage: Name of the stage.
            phases: Timer of the training steps.
            batch_size: Rows per step, summed over all processes.
            processes: Number of processes.
        """
        count, together = phases.typical_step()
        if self._alone is None or count < FEWEST:
            return ""
        alone, self._alone = self._alone, None
        if together < SLOWER * alone:
            return ""
        return (
            f"stage {stage} is slower in {processes} processes ({1000 * together:.3g} ms per step) than in one "
            f"({1000 * alone:.3g} ms): communication takes longer than it saves. Use one process, and the "
            f"others for other seeds (kdcore seeds --jobs), or increase data.batch_size from {batch_size}"
        )

    def _seconds(self, step: StageStep, batches: Sequence[Tensor], fabric: Fabric) -> float:
        phases, stage = Phases(profile=True), step.stage
        phases.synchronise = torch.cuda.synchronize if fabric.device.type == "cuda" else None
        alone = StageStep(step.distiller, stage, step.table, step.labelled, step.networks.cached, phases=phases)
        alone.progress = {name: Progress(stage.name, 0, 0, stage.training[name].epochs) for name in stage.learners}
        parameters = [each for each in alone.parameters() if each.requires_grad]
        before = {name: tensor.clone() for name, tensor in step.distiller.state_dict().items()}
        random = random_state()
        try:
            for batch in batches:
                phases.begin_step()
                with fabric.autocast():
                    total, _ = alone.forward(batch, batch)
                phases.mark(BACKWARD)
                torch.autograd.grad(total, parameters, allow_unused=True)
                phases.mark(OWN)
            phases.end_steps()
        finally:
            restore_random_state(random)
            step.distiller.load_state_dict(before)
        return phases.typical_step()[1]
