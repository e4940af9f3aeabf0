"""How far a run has come, kept in its folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdcore.errors import CheckpointError


@dataclass
class RunState:
    """What a run was asked for beside its recipe, and how far it has come.

    Args:
        folder: Of the run.
        done: ``[seed, arm]`` pairs that are finished.
        journal: Position in the run's journal that belongs to them, in bytes.
        complete: Whether the whole run is finished.
        command: Repeats the run.
        part: Part of the split that is evaluated.
        retrain: Whether to train teachers even if other runs have trained them.
    """

    folder: Path
    done: list[list[Any]] = field(default_factory=list)
    journal: int = 0
    complete: bool = False
    command: Sequence[str] = ()
    part: str = "test"
    retrain: bool = False

    @property
    def path(self) -> Path:
        """The file it is kept in."""
        return self.folder / "progress.json"

    def content(self) -> bytes:
        """As it is written to `path`."""
        kept = {name: getattr(self, name) for name in ("done", "journal", "complete", "part", "retrain")}
        return json.dumps({**kept, "command": list(self.command)}).encode()

    @classmethod
    def read(cls, folder: Path) -> RunState:
        """Read the state of the run in `folder`; an empty one if nothing is finished.

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
