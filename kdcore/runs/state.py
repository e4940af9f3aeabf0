"""The state of a run, stored in its folder as ``progress.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from kdcore.errors import CheckpointError
from kdcore.runs.journal import Journal, as_params, changed_keys, flattened
from kdcore.training.checkpoint import write_file

STATE = "progress.json"

CHECKPOINTED: Mapping[str, type] = {
    "seed": int,
    "arm": str,
    "journal": int,  # of the run
    "stage": int,
    "epoch": int,
    "step": int,
    "ended": str,
    "skipped": int,  # of the engine, down to the end
    "learners": dict,
    "random": dict,
    "watch": dict,
    "scaler": dict,
    "history": list,
    "notes": list,
}
"""Keys of a checkpoint's state that resuming requires, with their types."""


@dataclass
class RunState:
    """The arguments of a run besides its recipe, and its progress.

    Args:
        done: Finished (seed, arm) pairs.
        journal: Length in bytes of the run's journal up to the last of `done`.
        complete: Whether the whole run is finished.
        command: Command line that repeats the run.
        split: Split to evaluate on.
        retrain: Whether to train teachers even if other runs have trained them.
        trained: ``seed/arm`` → student → (epochs, steps, reason if it ended early).
        extends: Fields of the `Extension` of a finished run that this run is; empty for none.
    """

    done: list[tuple[int, str]] = field(default_factory=list)
    journal: int = 0
    complete: bool = False
    command: tuple[str, ...] = ()
    split: str = "test"
    retrain: bool = False
    trained: dict[str, dict[str, tuple[int, int, str]]] = field(default_factory=dict)
    extends: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write the state into the run's folder."""
        write_file(folder / STATE, json.dumps(asdict(self)).encode())

    @classmethod
    def read(cls, folder: Path) -> RunState:
        """Read the state of the run in `folder`.

        Raises:
            CheckpointError: If it is missing or damaged.
        """
        path = folder / STATE
        advice = f"restore the file, or start again: kdcore run {folder / 'recipe.yaml'}"
        if not path.exists():
            raise CheckpointError(f"{path} is missing; {advice}")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise CheckpointError(f"{path}:{error.lineno}: damaged: {error.msg}; {advice}") from error
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path}: cannot be read: {error}; {advice}") from error
        wrong = [each.name for each in fields(cls) if not isinstance(content, dict) or each.name not in content]
        try:
            if not wrong:
                return TypeAdapter(cls).validate_json(json.dumps(content), strict=True)
        except ValidationError as error:
            wrong = [error.errors()[0]["loc"][0]]
        raise CheckpointError(f"{path}:1: damaged: {wrong[0]!r} is missing, or is not what was written; {advice}")


def check_state(state: Mapping[str, Any], checkpoints: Path) -> None:
    """Check that a checkpoint's state has all keys that resuming requires.

    Raises:
        CheckpointError: If a key is missing or its value has another type.
    """
    for name, kind in CHECKPOINTED.items():
        if type(state.get(name)) is not kind:
            raise CheckpointError(
                f"{checkpoints}: the newest checkpoint's state.pt is damaged: {name!r} is missing, or is not what was written; "
                "delete that checkpoint's folder to resume from the one before it"
            )


def refuse_edited_recipe(filled: Mapping[str, Any], journal: Journal, folder: Path) -> None:
    """Check that a run is resumed with its original recipe.

    Raises:
        CheckpointError: If the recipe in its folder was edited; lists the options that differ.
    """
    began = next((record["values"] for _, record in journal.read(0) if record["kind"] == "params"), None)
    if began is None:
        return
    now = as_params(flattened(filled))
    names = [name for name in changed_keys(began, now) if not name.startswith("plugins")]
    changed = [f"{name} was {began.get(name)}, is {now.get(name)}" for name in names]
    if changed:
        more = f", and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise CheckpointError(
            f"{folder / 'recipe.yaml'} differs from the recipe that this run started with: {'; '.join(changed[:5])}{more}; "
            f"undo the change, or start another run: kdcore run {folder / 'recipe.yaml'}"
        )
