"""Shows losses the training samples at the start of an epoch, before the first step."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace

import torch
from torch import Tensor

from kdcore.contracts.batch import LossContext
from kdcore.errors import DataError
from kdcore.training.module_checks import reads_all_samples
from kdcore.training.randomness import derive, random_state, restore_random_state, seed_everything
from kdcore.training.step import StageStep


@torch.no_grad()
def begin_epoch(step: StageStep, rows: Tensor, batch_size: int, seed: int) -> None:
    """Call `DistillationLoss.begin_epoch` of the terms that define it; modes and random numbers are left unchanged.

    Args:
        step: The objective of the stage, with the learners' progress.
        rows: (n,) int64, the training rows.
        batch_size: Samples per context.
        seed: Seed of the losses' random numbers, equal in all processes: each process computes all contexts.
    """
    called = [n for n, term in enumerate(step.terms) if reads_all_samples(term.loss)]
    if not called:
        return
    outside, training = random_state(), {module: module.training for module in step.distiller.modules()}
    step.distiller.eval()
    try:
        for n in called:
            seed_everything(derive(seed, "begin_epoch", step.names[n]))
            with closing(_contexts(step, n, rows, batch_size)) as samples:
                step.terms[n].loss.begin_epoch(samples)
    finally:
        for module, mode in training.items():
            module.training = mode
        restore_random_state(outside)


def _contexts(step: StageStep, index: int, rows: Tensor, batch_size: int) -> Generator[LossContext, None, None]:
    """The contexts of the term `index` for all `rows`, neither mixed nor divided among processes."""
    table = step.table
    if table.labelled_count(rows) is None:
        name = step.terms[index].spec.id
        raise DataError(
            f"the loss {name!r} reads all training samples before an epoch, which a data loader cannot list: use a recipe"
        )
    whole = replace(table, mix=None) if table.mix else table
    observer = StageStep(step.distiller, step.stage, whole, step.labelled, step.networks.cached)
    observer.progress = step.progress
    for piece in rows.split(batch_size):
        _, context = observer.contexts(piece, piece)[index]
        if len(context.batch):
            yield context
