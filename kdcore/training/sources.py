"""Start of a stage: train and eval modes, reused classifiers, and cached outputs of frozen participants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdcore.data.table import Table
from kdcore.recipe.graph import StagePlan
from kdcore.training.classifiers import copy_classifiers
from kdcore.training.mixing import is_mixed
from kdcore.training.origins import copy_origins
from kdcore.training.participants import Distiller
from kdcore.training.teacher_cache import CachedOutputs, cache_teachers, outputs_vary, repeatable

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def begin_stage(distiller: Distiller, stage: StagePlan, new: Sequence[str]) -> None:
    """Copy the weights that learners start from or reuse, as they are now, and set all modes.

    Args:
        distiller: All participants of the arm, with their losses.
        stage: The stage.
        new: Learners that no earlier stage has trained; the others keep what they have learned.
    """
    copy_origins(distiller, new)
    copy_classifiers(distiller, stage.learners)
    set_modes(distiller, stage)


def set_modes(distiller: Distiller, stage: StagePlan) -> None:
    """Put the stage's learners into training mode and all others into evaluation mode."""
    distiller.eval()
    for module in distiller.trained_modules(stage.learners):
        module.train()
    for name in stage.sources:
        if name not in distiller.stored:
            member = distiller.participant(name)
            member.batch_transforms.train(member.augment_frozen)


def cached_sources(
    distiller: Distiller, stage: StagePlan, table: Table, batch_size: int, limit: int | None, fabric: Fabric
) -> dict[str, CachedOutputs]:
    """Compute the outputs of frozen participants whose outputs for a sample never change in a stage.

    Args:
        distiller: All participants of the arm.
        stage: The stage that reads the outputs.
        table: Prepared samples, indexed by row.
        batch_size: Samples per batch.
        limit: Largest size of the outputs in bytes; None to cache nothing.
        fabric: Devices, precision, processes.
    """
    if limit is None or is_mixed(table.mix, stage, distiller):
        return {}
    rows, names = table.training_rows(stage.split, stage.rows_of), repeatable(distiller, stage.sources)
    for name in names:  # again, with the weights as they are now: a classifier of zeros, for one, hides what varies
        first, member = table.complete_rows([name], rows)[:batch_size], distiller.participant(name)
        member.varies = len(first) > 0 and outputs_vary(member, table.batch(first, [name], labelled=False).signals[name])
    names = repeatable(distiller, names)
    if not set(names) & set(table.present):
        return cache_teachers(distiller, names, rows, table, batch_size, limit, fabric)
    cached: dict[str, CachedOutputs] = {}
    for group in distiller.independent_groups(names):
        present = table.complete_rows(group, rows)
        cached |= cache_teachers(distiller, group, present, table, batch_size, limit, fabric) if len(present) else {}
    return cached
