"""Store of trained teachers: a teacher stage that would give bit-identical weights is loaded instead of trained again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from kdcore.data.table import Table
from kdcore.errors import CheckpointError, StoppedError
from kdcore.plugin.code_files import source_hash, source_homes
from kdcore.recipe.graph import StagePlan
from kdcore.training.checkpoint import Checkpoints
from kdcore.training.participants import Distiller

PAUSE = 0.5
"""Seconds between checks for a stop request while waiting for the lock."""

History = list[tuple[dict[str, float], int]]
"""Tracked (metrics, step), in order."""


HASHED = 1 << 22
"""Number of elements hashed at a time."""


class TrainedStages:
    """Finished stages that train teachers only, stored under a hash of everything that determines the result.

    Args:
        folder: Folder of the store.
        identity: The parts of the recipe that affect how teachers train, as plain values.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]):
        self.folder = folder
        self.identity = dict(identity)

    def key(self, stages: Sequence[StagePlan], stage: StagePlan, distiller: Distiller, table: Table) -> str | None:
        """The hash of a stage before it begins; None if it cannot be stored.

        A stage can be stored if it trains only teachers, reads no other participant, is followed by no moving average, and no
        other stage trains the same teachers.
        """
        again = sum(bool(set(each.learners) & set(stage.learners)) for each in stages) > 1
        followed = any(average.follows in stage.learners for average in distiller.averages.values())
        started = bool(distiller.origins.keys() & set(stage.learners))
        if stage.sources or again or followed or started or not set(stage.learners) <= set(distiller.teachers):
            return None
        owned = distiller.trained_modules(stage.learners)
        modules = [part for module in owned for part in module.modules()]
        rows = table.training_rows(stage.split, stage.rows_of)
        held_out = table.rows.get("validation", rows[:0])
        tensors = [rows, held_out, table.train_labels[rows], table.labels[held_out]]
        tensors += [tensor for name in stage.learners for tensor in table.inputs[name]]
        tensors += [tensor for module in owned for tensor in module.state_dict().values()]
        tensors += [table.present[name] for name in stage.learners if name in table.present]
        columns = [distiller.participant(name).columns for name in stage.learners]
        tensors += [each for each in columns if each is not None]
        tensors += [] if table.weights is None else [table.weights[rows]]
        if distiller.class_embeddings is not None:
            tensors.append(distiller.class_embeddings)
        facts = {
            "recipe": self.identity,
            "stage": asdict(stage),
            "classes": table.classes,
            "target": asdict(table.target),
            "weighted": table.weights is not None,
            "torch": torch.__version__,
            "device": str(rows.device),
            "threads": torch.get_num_threads(),
            "code": _code_of(modules),
            "tensors": [_digest(tensor) for tensor in tensors],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()

    def load(self, key: str) -> tuple[dict[str, Tensor], History, list[str]] | None:
        """Load the weights, history and notes of a stage; None if it is not stored or damaged."""
        try:
            kept = Checkpoints(self.folder / key).load()
        except CheckpointError:
            return None
        if kept is None:
            return None
        history = [(dict(metrics), int(step)) for metrics, step in kept.state["history"]]
        return dict(kept.weights), history, list(kept.state.get("notes", ()))

    def save(self, key: str, weights: Mapping[str, Tensor], history: History, notes: Sequence[str] = ()) -> None:
        """Store a trained stage."""
        state = {"history": [[metrics, step] for metrics, step in history], "notes": list(notes)}
        Checkpoints(self.folder / key, keep=1).save(weights, state)


@contextmanager
def stage_lock(store: TrainedStages | None, key: str | None, stopped: Callable[[], bool]) -> Iterator[None]:
    """Hold the lock on a stage, so that one of several concurrent runs trains it and the others wait and load the result.

    The operating system, or the server of a shared file system, frees the lock of a process that dies.

    Args:
        store: The store; None for no lock.
        key: The stage's hash; None for no lock.
        stopped: Returns True to stop waiting.

    Raises:
        StoppedError: If a stop was requested while another run has the lock.
    """
    if store is None or key is None:
        yield
        return
    (store.folder / key).mkdir(parents=True, exist_ok=True)
    lock = FileLock(store.folder / key / "lock")
    while not lock.is_locked:
        with suppress(Timeout):
            lock.acquire(timeout=PAUSE)
        if stopped() and not lock.is_locked:
            raise StoppedError("")
    try:
        yield
    finally:
        lock.release()


def _digest(tensor: Tensor) -> str:
    digest = hashlib.sha256()
    for part in tensor.detach().reshape(-1).split(HASHED):  # a tensor on disk must not be copied whole
        content = part.cpu().clone(memory_format=torch.contiguous_format)  # `contiguous` leaves a single value as it is
        digest.update(content.view(torch.uint8).numpy().data)
    return f"{tensor.dtype}{tuple(tensor.shape)}{digest.hexdigest()}"


def _code_of(modules: Sequence[torch.nn.Module]) -> dict[str, str]:
    """Hash the sources of kdcore and of every package that defines one of the modules, except torch, and of their imports."""
    names = {type(module).__module__ for module in modules} | {"kdcore"}
    homes = {home for name in names if name.split(".")[0] != "torch" for home in source_homes(name)}
    return {str(home): source_hash(home) for home in sorted(homes)}
