"""Preparation of a run: data, participants and checks, up to the first training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from kdcore.data.table import Table
from kdcore.recipe.build import Builder
from kdcore.recipe.models import EngineSpec
from kdcore.recipe.plan import DISTILLED, Plan
from kdcore.runs.checks import check_groups, check_run, note_answerless
from kdcore.runs.records import refuse_other_recordings
from kdcore.training.assembly import Assembly
from kdcore.training.fabric import OneCpu, launch
from kdcore.training.participants import Distiller
from kdcore.training.phases import DATA, Phases
from kdcore.training.precision_check import check_precision
from kdcore.training.preflight import Preflight, preflight
from kdcore.training.randomness import make_deterministic

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Prepared:
    """A prepared run.

    Args:
        assembly: Constructs the participants.
        table: Prepared samples of all splits, on the run's device.
        checks: Result of the checks before training.
        distiller: The checked participants of the first seed's distilled arm, untrained.
    """

    assembly: Assembly
    table: Table
    checks: Preflight
    distiller: Distiller


def prepare(
    plan: Plan,
    builder: Builder,
    fabric: Fabric | OneCpu,
    split: str,
    folder: Path | None,
    reading: Callable[[int, int, str], None],
    phases: Phases,
) -> Prepared:
    """Launch the processes, prepare the data, construct the participants, and check them on a few batches.

    Args:
        plan: The validated plan of the run.
        builder: Constructs the recipe's components.
        fabric: Devices, precision, processes.
        split: Split to evaluate on.
        folder: Folder of the run to resume or extend; None for a new run.
        reading: Progress callback, called with (done, total, what).
        phases: Timer of the run.

    Raises:
        KdcoreError: If the recipe or the recordings are invalid. Nothing except prepared data has been written.
    """
    recipe = builder.recipe
    launch(fabric)
    _set_torch(recipe.engine)
    dataset = builder.dataset()
    with builder.locating_data_errors():
        assembly = Assembly(builder, dataset, plan)
        with phases.during(DATA):
            table = assembly.load_table(reading)
    check_run(assembly, table, split, fabric.world_size)
    if folder:
        refuse_other_recordings(folder, table)
    table = table.to(fabric.device, recipe.data.memory_bytes)
    withheld = recipe.data.labels == "withheld"
    with builder.locating_data_errors():
        distiller = assembly.distiller(table, recipe.seeds[0], DISTILLED, fabric.device)
        check_groups(assembly, distiller)
        checks = preflight(distiller, assembly.plan.stages[DISTILLED], table, recipe.data.batch_size, withheld)
    note_answerless(assembly, checks.answerless)
    _note_terms(assembly, distiller, checks)
    check_precision(distiller, table, table.rows["train"][: recipe.data.batch_size], fabric, recipe.engine.precision)
    return Prepared(assembly, table, checks, distiller)


def _note_terms(assembly: Assembly, distiller: Distiller, checks: Preflight) -> None:
    """Report terms whose loss has parameters without a gradient, is 0 at first, or keeps state that is not saved."""
    for check in checks.terms:
        term = distiller.describe_term(check.learner, check.term)
        if check.idle and check.samples:
            names = ", ".join(map(repr, check.idle[:3])) + (" …" if len(check.idle) > 3 else "")
            why = "which is expected only if a ramp starts at 0 or the loss starts at its minimum"
            assembly.note(f"{term}: no gradient reaches the loss's parameters {names} on the first batch, {why}")
        if check.satisfied:
            assembly.note(f"{term}: its value and its gradient are 0 on the first batches")
        if check.unsaved:
            names = ", ".join(check.unsaved[:3])
            change = "change" if len(check.unsaved) > 1 else "changes"
            assembly.note(
                f"{term}: {names} {change} at each call without being saved, so a resumed run may differ; use register_buffer"
            )


def _set_torch(engine: EngineSpec) -> None:
    torch.set_default_dtype(torch.float32)  # a plugin may have set others when it was imported
    torch.set_grad_enabled(True)
    if engine.threads:
        torch.set_num_threads(engine.threads)
    if engine.deterministic:
        make_deterministic(engine.compile)
