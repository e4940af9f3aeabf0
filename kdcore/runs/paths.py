"""Folders of runs and caches."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from kdcore.errors import CheckpointError, UnknownRunError


def runs_folder() -> Path:
    """``$KDCORE_RUNS``, else ``kdcore-runs`` in the current folder."""
    return Path(os.environ.get("KDCORE_RUNS", "kdcore-runs")).absolute()


def new_run_id(name: str, digest: str, now: datetime) -> str:
    """A run's name: when it began, its recipe's name, and a piece of the recipe's hash."""
    base = f"{now:%Y%m%d-%H%M%S}-{name}-{digest[:6]}"
    taken = runs_folder()
    return next(each for n in range(1, 1000) if not (taken / (each := base if n == 1 else f"{base}-{n}")).exists())


def find_run(run_id: str) -> Path:
    """The folder of a run, by its id, an unambiguous beginning or end of it, or its path.

    Raises:
        UnknownRunError: If there is none.
        CheckpointError: If there are several.
    """
    path = Path(run_id)
    if (path / "recipe.yaml").exists():
        return path.absolute()
    folder = runs_folder()
    known = sorted(each.name for each in folder.iterdir() if (each / "recipe.yaml").exists()) if folder.is_dir() else []
    matches = [name for name in known if name == run_id] or [
        name for name in known if name.startswith(run_id) or name.endswith(run_id)
    ]
    if not matches:
        raise UnknownRunError(f"no run {run_id!r} in {folder}" + (f" (the last are: {', '.join(known[-5:])})" if known else ""))
    if len(matches) > 1:
        raise CheckpointError(f"several runs are called {run_id!r}: {', '.join(matches)}")
    return folder / matches[0]
