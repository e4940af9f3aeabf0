"""The folder of a new run."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from kdcore.plugin.files import is_file
from kdcore.recipe.plan import Plan
from kdcore.recipe.yaml import dump
from kdcore.runs.extension import copy_states
from kdcore.runs.paths import new_run_id, runs_folder
from kdcore.runs.state import RunState
from kdcore.training.checkpoint import sync_folder, write_file

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def make_folder(plan: Plan, fabric: Fabric, state: RunState, extended: Path | None = None) -> Path:
    """Create a new run's folder with its recipe and state; the same in all processes.

    The folder gets its name only when it is complete, so that every run that is listed can be resumed.

    Args:
        plan: The plan of the run.
        fabric: Devices, precision, processes.
        state: The state to begin with.
        extended: Folder of the finished run that the new run extends; None if it extends none.
    """
    folder = runs_folder() / fabric.broadcast(_claimed_id(plan) if fabric.is_global_zero else "")
    if fabric.is_global_zero:
        unfinished = _unfinished(folder)
        try:
            _write_recipe(plan, unfinished)
            if extended:
                copy_states(extended, unfinished, plan)
            state.write(unfinished)
            unfinished.rename(folder)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        sync_folder(folder.parent)
    fabric.barrier()
    return folder


def _claimed_id(plan: Plan) -> str:
    """The id of a new run, whose unfinished folder is created: two runs that begin in the same second must not share it."""
    while True:
        run_id = new_run_id(plan.recipe.name, plan.hash, datetime.now(UTC))
        unfinished = _unfinished(runs_folder() / run_id)
        try:
            unfinished.mkdir(parents=True)
        except FileExistsError:
            continue
        if not unfinished.with_name(run_id).exists():
            return run_id
        unfinished.rmdir()  # another run has been given this id since


def _unfinished(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.part")


def _write_recipe(plan: Plan, folder: Path) -> None:
    """The recipe in full, with copies of those plugins that are files, so that the folder says all that was run."""
    tree = {**plan.filled, "plugins": list(plan.filled["plugins"])}
    for index, name in enumerate(tree["plugins"]):
        if is_file(name):
            tree["plugins"][index] = copy = f"plugins/{Path(name).name}"
            write_file(folder / copy, Path(name).read_bytes())
    write_file(folder / "recipe.yaml", dump(tree).encode())
