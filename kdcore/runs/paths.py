"""Where runs are kept."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

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


@dataclass
class Ledger:
    """What a run was asked for beside its recipe, and what it has finished: seeds and arms, and their share of its tracking."""

    folder: Path
    done: list[list[Any]] = field(default_factory=list)
    journal: int = 0
    complete: bool = False
    command: Sequence[str] = ()
    part: str = "test"
    anew: bool = False

    @property
    def path(self) -> Path:
        """The file it is kept in."""
        return self.folder / "progress.json"

    def content(self) -> bytes:
        """As it is written to `path`."""
        kept = {name: getattr(self, name) for name in ("done", "journal", "complete", "part", "anew")}
        return json.dumps({**kept, "command": list(self.command)}).encode()

    @classmethod
    def read(cls, folder: Path) -> Ledger:
        """The ledger of the run in `folder`; an empty one if nothing is finished.

        Raises:
            CheckpointError: If it is damaged.
        """
        path = folder / "progress.json"
        if not path.exists():
            return cls(folder)
        try:
            return cls(folder, **json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{path}: damaged: {error}") from error
