"""Outputs of a run's participants, stored in a file for students that are trained elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

from torch import Tensor

from kdcore import __version__
from kdcore.data.table import Table
from kdcore.errors import UsageError
from kdcore.recipe.plan import DISTILLED
from kdcore.runs.artifacts import restore_participants
from kdcore.runs.context import reopen
from kdcore.runs.records import read_run
from kdcore.suggestions import did_you_mean
from kdcore.training.fabric import make_fabric
from kdcore.training.participants import Distiller
from kdcore.training.stored_outputs import StoredOutputs, check_suffix, write_outputs
from kdcore.training.teacher_cache import cache_teachers, outputs_vary


def store_outputs(run_id: str | Path, participant: str, to: Path, seed: int | None = None) -> dict[str, int]:
    """Write the outputs of a trained participant for every sample of its run's splits.

    Outputs are computed split by split in batches of the recipe's size, as in the teacher cache: a student distilled from the
    file gets the same weights as one distilled from the participant.

    Args:
        run_id: Id or folder of a finished run.
        participant: Name of a teacher or student.
        to: File to write: Parquet, NPZ or safetensors, by its suffix.
        seed: Seed of the run; the first by default.

    Returns:
        Split → number of samples.

    Raises:
        KdcoreError: If there is no such run or participant, its recordings are not what they were, or the outputs of a sample
            depend on the other samples of its batch.
    """
    check_suffix(to)
    run = read_run(run_id)
    seed = run.facts.seeds[0] if seed is None else seed
    if seed not in run.facts.seeds:
        raise UsageError(f"{run.folder.name} has no seed {seed} (it has {', '.join(map(str, run.facts.seeds))})")
    context = reopen(run)
    distiller, table, recipe = restore_participants(context, seed, DISTILLED), context.table, context.recipe
    if participant not in distiller.networks:
        hint = did_you_mean(participant, distiller.networks, "it has")
        raise UsageError(f"{run.folder.name} has no participant {participant!r} with a network ({hint})")
    _refuse_varying(distiller, participant, table, recipe.data.batch_size)
    fabric = make_fabric(recipe.engine.model_copy(update={"devices": 1, "strategy": "auto"}))
    parts = {name: _having(table, participant, rows) for name, rows in table.rows.items()}
    outputs = [
        cache_teachers(distiller, [participant], rows, table, recipe.data.batch_size, sys.maxsize, fabric)[participant]
        for rows in parts.values()
        if len(rows)
    ]
    rows = [row for part in parts.values() for row in part.tolist()]
    stored = StoredOutputs.of(
        [table.keys[row] for row in rows],
        outputs,
        table.classes,
        {"run": run.folder.name, "participant": participant, "seed": seed, "recipe": recipe.name, "kdcore": __version__},
        table.target,
    )
    write_outputs(to, stored)
    return {name: len(part) for name, part in parts.items() if len(part)}


def _refuse_varying(distiller: Distiller, participant: str, table: Table, batch_size: int) -> None:
    """Refuse a participant whose outputs are not the same for a sample in every batch and pass, or that lacks classes."""
    if participant in distiller.fused and distiller.fusion.batch_dependent:
        raise UsageError(f"the outputs of {participant!r} depend on the other samples of a batch, so they cannot be stored")
    rows = _having(table, participant, table.rows["train"])[: max(4, batch_size)]
    batch = table.batch(rows, [participant], labelled=False)
    if outputs_vary(distiller.participant(participant).eval(), batch.signals[participant]):
        raise UsageError(f"the outputs of {participant!r} change from pass to pass or with the batch, so they cannot be stored")
    if distiller.participant(participant).known_classes is not None:
        raise UsageError(f"{participant!r} does not know all classes of its run, so its outputs cannot be stored")


def _having(table: Table, participant: str, rows: Tensor) -> Tensor:
    complete = table.complete([participant], rows)
    return rows if complete is None else rows[complete]
