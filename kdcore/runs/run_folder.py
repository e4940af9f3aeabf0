"""The folder of a new run."""

from __future__ import annotations

import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import BaseFileLock, FileLock, Timeout

from kdcore.plugin.files import is_file
from kdcore.recipe.plan import Plan
from kdcore.recipe.yaml import dump
from kdcore.runs.extension import copy_states
from kdcore.runs.lock import LOCK
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
    run_id = ""
    if fabric.is_global_zero:
        remove_unfinished()
        folder, lock = _claim(plan)
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
        finally:
            lock.release()
        sync_folder(folder.parent)
        run_id = folder.name
    return runs_folder() / fabric.broadcast(run_id)


def _claim(plan: Plan) -> tuple[Path, BaseFileLock]:
    """Return the folder of a new run, and the held lock of its unfinished folder, which is created.

    Two runs that begin in the same second must not share an id.
    """
    while True:
        folder = runs_folder() / new_run_id(plan.recipe.name, plan.hash, datetime.now(UTC))
        lock = FileLock(_unfinished(folder) / LOCK)
        try:
            _unfinished(folder).mkdir(parents=True)
            lock.acquire(timeout=0)
        except (FileExistsError, Timeout):  # another process claims this id, or removes its folder
            continue
        if not folder.exists():
            return folder, lock
        shutil.rmtree(_unfinished(folder))  # another run has been given this id since
        lock.release()


def _unfinished(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.part")


def remove_unfinished() -> None:
    """Remove the unfinished folders of runs whose process was killed while it created them."""
    for unfinished in runs_folder().glob(".*.part"):
        with suppress(OSError, Timeout), FileLock(unfinished / LOCK, timeout=0):
            shutil.rmtree(unfinished)


def _write_recipe(plan: Plan, folder: Path) -> None:
    """The recipe in full, with copies of those plugins that are files, so that the folder says all that was run."""
    tree = {**plan.filled, "plugins": list(plan.filled["plugins"])}
    for index, name in enumerate(tree["plugins"]):
        if is_file(name):
            tree["plugins"][index] = copy = f"plugins/{Path(name).name}"
            write_file(folder / copy, Path(name).read_bytes())
    write_file(folder / "recipe.yaml", dump(tree).encode())
