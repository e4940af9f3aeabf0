"""Run a recipe, from a file to a finished run."""

from __future__ import annotations

from collections.abc import Sequence
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
from kdcore.runs.records import read_facts, recipe_of
from kdcore.runs.result import Result
from kdcore.runs.session import RunSession
from kdcore.runs.state import RunState
from kdcore.training.phases import Phases, in_order
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
    """Run a recipe. Returns None in all processes of a distributed run but the first.

    The random state, the number of threads and torch's settings are restored afterwards. Do not run two recipes at the same
    time in threads of one process, since they would share torch's random state.

    Args:
        source: Path of a recipe, name of a shipped one, a dictionary with the content of a recipe, or a `kdcore.Recipe`.
        overrides: ``key=value`` each.
        data: A dataset in place of the recipe's, such as a `kdcore.ArrayDataset`; the recipe may then leave ``data.dataset``
            out.
        callbacks: Callbacks that receive the events of the run.
        progress: Whether to show progress; by default, in a notebook.
        command: Command that repeats the run.
        split: Split to evaluate on. With ``validation``, for choosing among recipes, test samples are never used.
        retrain: Train teachers even if another run has trained them (`engine.reuse_teachers`).
        profile: Measure every training step, and write traces of some steps into the run's folder. Results are bit-identical.
        began: Value of `time.perf_counter` at the start of the run; now by default.

    Raises:
        KdcoreError: With a message for the user; nothing is written if the recipe or the data are at fault.
    """
    phases, plugins = Phases(profile, began), plugin_manager()
    plan, listener = make_plan(load_recipe(source, overrides, plugins, data)), listener_for(callbacks, progress)
    session = RunSession(plan, plugins, listener, command, None, split, retrain, phases=phases)
    with preserved_torch(), exits_attributed(plugins), session:
        for arm in session.arms():
            arm.engine.fit(arm.stages, arm.checkpoint)
        result = _result(session)
    return _timed(result)


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
    """Resume an interrupted run, with the same result as without the interruption; or train a finished run for more epochs.

    More epochs make a new run, which starts from the final state of the finished run and records its id.

    Args:
        run_id: Its id or folder.
        overrides: ``key=value`` each, for more epochs of the last stage, such as ``schedule.student.epochs=60``.
        data: The dataset, if the run was given one in Python.
        callbacks: Told how it goes.
        progress: Whether to show the progress; by default, in a notebook.
        profile: As for `run`.
        began: Likewise.

    Raises:
        CheckpointError: If there is no such run, or its checkpoint cannot be trusted.
        UsageError: If an override changes anything but the epochs of the last stage.
    """
    phases, folder, plugins = Phases(profile, began), find_run(str(run_id)), plugin_manager()
    plan, listener = make_plan(recipe_of(folder, plugins, data, files=True)), listener_for(callbacks, progress)
    if overrides:
        longer = make_plan(load_recipe(folder / "recipe.yaml", overrides, plugins, data))
        extends, command = (folder, extension(folder, plan, longer)), ["kdcore", "resume", folder.name, *overrides]
        split = RunState.read(folder).split
        session = RunSession(longer, plugins, listener, command, None, split, extends=extends, phases=phases)
    else:
        session = RunSession(plan, plugins, listener, folder=folder, phases=phases)
    with preserved_torch(), exits_attributed(plugins), session:
        for arm in session.arms():
            arm.engine.fit(arm.stages, arm.checkpoint)
        result = _result(session)
    return _timed(result)


def dry_run(
    source: Source,
    overrides: Sequence[str] = (),
    *,
    data: Dataset | None = None,
    callbacks: Sequence[RunListener] = (),
    split: Literal["test", "validation"] = "test",
) -> Preflight | None:
    """Check a recipe with one batch: shapes, terms and gradients. Nothing is trained, and only prepared data are written.

    Returns None in all processes of a distributed run but the first.
    """
    plugins = plugin_manager()
    with preserved_torch(), exits_attributed(plugins):
        plan = make_plan(load_recipe(source, overrides, plugins, data))
        session = RunSession(plan, plugins, listener_for(callbacks, False), split=split)
        prepared = session.prepare(session.fabric)
    if not session.fabric.is_global_zero:
        return None
    for note in prepared.assembly.notes:
        session.listener.say(note)
    return prepared.found


def _result(session: RunSession) -> Result | None:
    if not session.writes:
        return None
    summary, report = session.conclude()
    return Result(summary, session.context.folder, report, session.tracker.describe(), session.tracker.run_ids())


def _timed(result: Result | None) -> Result | None:
    """The result with the time that the run took, up to the end of its tracking."""
    if result:
        facts = read_facts(result.folder)
        result.phases = in_order(facts.phases) if facts else {}
        result.traces = sorted((result.folder / "profile").glob("*.json"))
    return result
