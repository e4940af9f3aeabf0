"""Run, resume or dry-run a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from kdcore.contracts.dataset import Dataset
from kdcore.plugin.error_attribution import exits_attributed
from kdcore.plugin.manager import plugin_manager
from kdcore.recipe.load import Source, load_recipe
from kdcore.recipe.plan import make_plan
from kdcore.runs.callbacks import RunListener
from kdcore.runs.extension import extension
from kdcore.runs.paths import find_run
from kdcore.runs.progress import listener_for
from kdcore.runs.records import recipe_of
from kdcore.runs.result import Result
from kdcore.runs.session import RunSession, execute
from kdcore.runs.state import RunState
from kdcore.training.phases import Phases
from kdcore.training.preflight import Preflight
from kdcore.training.randomness import preserved_torch


def run(
    source: Source,
    overrides: Sequence[str] = (),
    *,
    data: Dataset | None = None,
    callbacks: Sequence[RunListener] = (),
    progress: bool | None = None,
    command: Sequence[str] = (),
    split: Literal["test", "validation"] = "test",
    retrain: bool = False,
    profile: bool = False,
    began: float | None = None,
) -> Result | None:
    """Run a recipe from the start. Returns None in every process of a distributed run except the first.

    Random states, the number of threads and PyTorch's global settings are restored afterwards. Do not call it from two threads
    at once: they would share PyTorch's global random state.

    Args:
        source: Path of a recipe, name of a shipped recipe, a dictionary with the content of a recipe, or a `kdcore.Recipe`.
        overrides: Overrides ``key=value``.
        data: Dataset that replaces the recipe's, such as a `kdcore.ArrayDataset`; ``data.dataset`` is then optional.
        callbacks: Callbacks of the run.
        progress: Whether to show progress; by default only in a notebook.
        command: Command line that repeats the run, for its record.
        split: Split to evaluate on. Use ``validation`` to choose between recipes: test samples are then never used.
        retrain: Train teachers even if other runs have trained them (overrides `engine.reuse_teachers`).
        profile: Time every training step, and write traces of some to the run's folder. Results are bit-identical.
        began: Reading of `time.perf_counter` at which the run's timing starts; now by default.

    Raises:
        KdcoreError: With a message for the user. Nothing is written if the recipe or the data are invalid.
    """
    phases, plugins = Phases(profile, began), plugin_manager()
    plan, listener = make_plan(load_recipe(source, overrides, plugins, data)), listener_for(callbacks, progress)
    state = RunState(command=tuple(command), split=split, retrain=retrain)
    return execute(RunSession(plan, plugins, listener, state, phases=phases))


def resume(
    run_id: str | Path,
    overrides: Sequence[str] = (),
    *,
    data: Dataset | None = None,
    callbacks: Sequence[RunListener] = (),
    progress: bool | None = None,
    profile: bool = False,
    began: float | None = None,
) -> Result | None:
    """Resume an interrupted run with bit-identical results, or extend a finished run by more epochs.

    An extension is a new run: it starts from the final state of the finished run, and records that run's id.

    Args:
        run_id: Id or folder of the run.
        overrides: Overrides ``key=value`` that add epochs to the last stage, such as ``schedule.student.epochs=60``.
        data: The dataset, if the run was given one in Python.
        callbacks: Callbacks of the run.
        progress: Whether to show progress; by default only in a notebook.
        profile: See `run`.
        began: See `run`.

    Raises:
        CheckpointError: If there is no such run, or its checkpoint is damaged.
        UsageError: If an override changes anything except the epochs of the last stage.
    """
    phases, folder, plugins = Phases(profile, began), find_run(str(run_id)), plugin_manager()
    plan, listener = make_plan(recipe_of(folder, plugins, data, files=True)), listener_for(callbacks, progress)
    if overrides:
        longer = make_plan(load_recipe(folder / "recipe.yaml", overrides, plugins, data))
        extends, command = asdict(extension(folder, plan, longer)), ("kdcore", "resume", folder.name, *overrides)
        state = RunState(command=command, split=RunState.read(folder).split, extends=extends)
        return execute(RunSession(longer, plugins, listener, state, extended=folder, phases=phases))
    return execute(RunSession(plan, plugins, listener, RunState.read(folder), folder, phases=phases))


def dry_run(
    source: Source,
    overrides: Sequence[str] = (),
    *,
    data: Dataset | None = None,
    callbacks: Sequence[RunListener] = (),
    split: Literal["test", "validation"] = "test",
) -> Preflight | None:
    """Check shapes, losses and gradients on a few batches. Trains nothing, and writes nothing except prepared data.

    Returns None in every process of a distributed run except the first.
    """
    plugins = plugin_manager()
    with preserved_torch(), exits_attributed(plugins):
        plan = make_plan(load_recipe(source, overrides, plugins, data))
        session = RunSession(plan, plugins, listener_for(callbacks, False), RunState(split=split))
        prepared = session.prepare()
    if not session.is_first:
        return None
    for note in prepared.assembly.notes:
        session.listener.say(note)
    return prepared.checks
