"""The context of a run, passed to hooks."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from kdcore import __version__
from kdcore.data.table import Table
from kdcore.errors import DataError
from kdcore.plugin.manager import plugin_manager
from kdcore.recipe.build import Builder, versions_used
from kdcore.recipe.models import Recipe
from kdcore.recipe.plan import DISTILLED, make_plan
from kdcore.runs.journal import RunJournal
from kdcore.runs.provenance import code_hashes, named_files
from kdcore.runs.records import Facts, FinishedRun, installed_versions, recipe_of
from kdcore.training.assembly import Assembly
from kdcore.training.participants import Distiller


@dataclass(frozen=True)
class RunContext:
    """A run, as hooks see it.

    Args:
        recipe: The validated recipe.
        folder: The run's folder.
        assembly: Constructs the participants; holds the dataset and the transforms.
        table: Prepared samples of all splits, indexed by row.
        hook: Calls the plugins' hooks.
        split: Split to evaluate on.
        versions: Plugin → version, of the plugins used.
        command: Command line that repeats the run.
        journal: Records metrics; None for a finished run, and in every process of a distributed run except the first.
        trained: (seed, arm) → participants on the CPU, of the first seed's arms that this process trained;
            `restore_participants` returns these instead of reading files.
    """

    recipe: Recipe
    folder: Path
    assembly: Assembly
    table: Table
    hook: Any
    split: str = "test"
    versions: Mapping[str, str] = field(default_factory=dict)
    command: Sequence[str] = ()
    journal: RunJournal | None = None
    trained: dict[tuple[int, str], Distiller] = field(default_factory=dict, repr=False)


UNWEIGHTED = "samples have weights: terms that read labels use them, metrics count every sample alike"
"""Note shown with the results of a run whose samples have weights."""


def run_facts(run: RunContext) -> Facts:
    """Collect the facts of a run for its record."""
    plan = run.assembly.plan
    stages = plan.stages[DISTILLED]
    unweighted = [UNWEIGHTED] if run.table.weights is not None else []
    return Facts(
        name=run.recipe.name,
        recipe_hash=plan.hash,
        variant=run.recipe.digest(plan.filled, *run.recipe.NO_CONFIGURATION),
        split=run.split,
        split_rule=run.table.splits.rule,
        counts={name: len(rows) for name, rows in run.table.rows.items()},
        fingerprint=run.table.fingerprint,
        classes=list(run.table.classes),
        selection={name: training.selection for stage in stages for name, training in stage.training.items()},
        modalities={name: list(spec.modalities) for name, spec in run.recipe.participants.items()},
        seeds=run.recipe.seeds,
        arms=list(plan.arms),
        versions=installed_versions(run.versions),
        code=code_hashes(run.recipe, list(run.versions), plugin_manager()),
        files=named_files(plan.filled),
        machine=_machine(run.table.labels.device),
        command=list(run.command),
        dropped=run.table.dropped.record(),
        notes=[*run.table.dropped.lines(), *run.table.warnings, *unweighted, *run.assembly.notes],
        no_baseline=plan.no_baseline,
        distilled=list(plan.distilled),
        target={} if run.table.target.is_classes else asdict(run.table.target),
    )


def tags_of(run: RunContext, extends: str = "") -> dict[str, object]:
    """Tags of a run for the tracker.

    Args:
        run: The run.
        extends: Id of the run that it extends; empty for none.
    """
    return {
        "recipe": run.recipe.name,
        "recipe_hash": run.assembly.plan.hash,
        "run": run.folder.name,
        "kdcore": __version__,
        "dataset": run.recipe.data.dataset.name,
        "dataset_fingerprint": run.table.fingerprint,
        "split_rule": run.table.splits.rule,
        "command": shlex.join(run.command),
        "torch": torch.__version__,
        **{f"plugin.{name}": version for name, version in run.versions.items()},
        **({"extends": extends} if extends else {}),
        **run.recipe.tracking.tags,
    }


def _machine(device: torch.device) -> str:
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{platform.system()} {platform.machine()}, {kind}, {torch.get_num_threads()} threads"


def reopen(run: FinishedRun) -> RunContext:
    """Rebuild the context of a finished run, reading its data again.

    Raises:
        DataError: If the recordings cannot be read, or have changed since the run.
        KdcoreError: If the run's recipe cannot be used on this machine.
    """
    plugins = plugin_manager()
    recipe = recipe_of(run.folder, plugins)
    builder = Builder(recipe, plugins)
    assembly = Assembly(builder, builder.dataset(), make_plan(recipe))
    table = assembly.load_table()
    if table.fingerprint != run.facts.fingerprint:
        raise DataError("the recordings are no longer those that the run was made on")
    versions = versions_used(recipe, plugins)
    return RunContext(recipe, run.folder, assembly, table, plugins.hook, run.facts.split, versions, run.facts.command)
