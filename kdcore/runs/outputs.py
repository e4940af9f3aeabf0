"""Outputs of a run's participants, stored in a file for students that are trained elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kdcore import __version__
from kdcore.contracts.dataset import SampleKey
from kdcore.errors import UsageError
from kdcore.recipe.plan import DISTILLED
from kdcore.runs.artifacts import learned_from, restore_participants
from kdcore.runs.context import RunContext, reopen
from kdcore.runs.journal import changed_keys, flattened
from kdcore.runs.recipe_changes import UNCOUNTED
from kdcore.runs.records import FinishedRun, read_run, recipe_of
from kdcore.suggestions import did_you_mean
from kdcore.training.fabric import make_fabric
from kdcore.training.participants import Distiller
from kdcore.training.stored_outputs import StoredOutputs, check_suffix, concatenated_outputs, write_outputs
from kdcore.training.teacher_cache import cache_teachers, outputs_vary

FOLDS = (*UNCOUNTED, "data.protocol", "seeds", "baseline", "plugins")
"""Keys in which the runs of one cross-validation may differ; each run has its own copy of a plugin file."""


def store_outputs(
    run_ids: str | Path | Sequence[str | Path], participant: str, to: Path, seed: int | None = None
) -> dict[str, int]:
    """Write the outputs of a trained participant.

    The outputs of one run are those for every sample of its splits. They are computed split by split in batches of the
    recipe's size, as in the teacher cache: a student distilled from the file gets the same weights as one distilled from the
    participant.

    The outputs of several runs, such as the folds of a cross-validation, are out-of-fold outputs: those of each run for its
    test split, so that no network has learned from a sample that its outputs are stored for. They have no features, since
    networks that were trained separately do not agree on the meaning of a feature.

    Args:
        run_ids: Id or folder of a finished run, or several.
        participant: Name of a teacher or student.
        to: File to write: Parquet, NPZ or safetensors, by its suffix.
        seed: Seed of the runs; the first run's first by default.

    Returns:
        Split → number of samples; run → number of samples of several runs.

    Raises:
        KdcoreError: If there is no such run or participant, its recordings are not what they were, or the outputs of a sample
            depend on the other samples of its batch; for several runs, also if their recipes differ in more than the protocol,
            or a sample is in two of their test splits.
    """
    check_suffix(to)
    runs = [read_run(each) for each in ([run_ids] if isinstance(run_ids, (str, Path)) else run_ids)]
    seed = runs[0].facts.seeds[0] if seed is None else seed
    if len(runs) == 1:
        outputs, counts = _compute(runs[0], participant, seed)
        write_outputs(to, outputs)
        return counts
    _refuse_other_recipes(runs)
    parts = [_compute(run, participant, seed, ("test",))[0] for run in runs]
    _refuse_overlap(runs, parts)
    write_outputs(to, concatenated_outputs([replace(part, features={}, folded=()) for part in parts]))
    return {run.folder.name: len(part.keys) for run, part in zip(runs, parts, strict=True)}


def _compute(run: FinishedRun, participant: str, seed: int, splits: Sequence[str] = ()) -> tuple[StoredOutputs, dict[str, int]]:
    """Compute the outputs of a run's participant for some splits, all by default; and the number of samples of each split."""
    if seed not in run.facts.seeds:
        raise UsageError(f"{run.folder.name} has no seed {seed} (it has {', '.join(map(str, run.facts.seeds))})")
    context = reopen(run)
    distiller, table, recipe = restore_participants(context, seed, DISTILLED), context.table, context.recipe
    _refuse_unstorable(context, distiller, participant)
    fabric = make_fabric(recipe.engine.model_copy(update={"devices": 1, "strategy": "auto"}))
    rows_of = {
        name: table.complete_rows([participant], rows) for name, rows in table.rows.items() if not splits or name in splits
    }
    computed = [
        cache_teachers(distiller, [participant], rows, table, recipe.data.batch_size, sys.maxsize, fabric)[participant]
        for rows in rows_of.values()
        if len(rows)
    ]
    if not computed:
        raise UsageError(f"{run.folder.name} has no samples of {' or '.join(rows_of)} with the signals of {participant!r}")
    outputs = StoredOutputs.of(
        [table.keys[row] for rows in rows_of.values() for row in rows.tolist()],
        computed,
        table.classes,
        {"run": run.folder.name, "participant": participant, "seed": seed, "recipe": recipe.name, "kdcore": __version__},
        table.target,
    )
    learned = frozenset(learned_from(context.assembly, table, participant))
    return replace(outputs, trained_on=learned), {name: len(rows) for name, rows in rows_of.items() if len(rows)}


def _refuse_unstorable(context: RunContext, distiller: Distiller, participant: str) -> None:
    """Refuse a participant without a network, and one whose outputs for a sample are not always the same."""
    table = context.table
    if participant not in distiller.networks:
        hint = did_you_mean(participant, distiller.networks, "it has")
        raise UsageError(f"{context.folder.name} has no participant {participant!r} with a network ({hint})")
    if participant in distiller.fused and distiller.fusion.batch_dependent:
        raise UsageError(f"the outputs of {participant!r} depend on the other samples of a batch, so they cannot be stored")
    some = table.complete_rows([participant], table.rows["train"])[: max(4, context.recipe.data.batch_size)]
    part = table.batch(some, [participant], labelled=False)
    if outputs_vary(distiller.participant(participant).eval(), part.signals[participant]):
        raise UsageError(f"the outputs of {participant!r} change from pass to pass or with the batch, so they cannot be stored")
    if distiller.participant(participant).known_classes is not None:
        raise UsageError(f"{participant!r} does not know all classes of its run, so its outputs cannot be stored")


def _refuse_other_recipes(runs: Sequence[FinishedRun]) -> None:
    """Refuse runs of different recordings, or of recipes that differ in more than the protocol."""
    first, *further = runs
    values = flattened(recipe_of(first.folder).filled())
    for run in further:
        others = flattened(recipe_of(run.folder).filled())
        if other := [key for key in changed_keys(values, others) if not key.startswith(FOLDS)]:
            raise UsageError(
                f"{first.folder.name} and {run.folder.name} differ in {other[0]}: outputs of several runs are those of the "
                "folds of one cross-validation"
            )
        if first.facts.fingerprint != run.facts.fingerprint:
            raise UsageError(f"{first.folder.name} and {run.folder.name} were made on different recordings")


def _refuse_overlap(runs: Sequence[FinishedRun], parts: Sequence[StoredOutputs]) -> None:
    """Refuse a sample that two runs have in their test splits."""
    run_of: dict[SampleKey, str] = {}
    for run, part in zip(runs, parts, strict=True):
        for key in part.keys:
            if run_of.get(key) == run.folder.name:
                raise UsageError(f"{run.folder.name} is given twice")
            if key in run_of:
                raise UsageError(f"{key} is in the test splits of both {run_of[key]} and {run.folder.name}: give one of them")
            run_of[key] = run.folder.name
