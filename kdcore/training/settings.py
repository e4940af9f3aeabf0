"""The engine's options besides the stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Checkpoint = tuple[Mapping[str, Tensor], Mapping[str, Any]]
"""Weights, and the state that goes with them."""


@dataclass(frozen=True)
class Settings:
    """The engine's options besides the stages.

    Args:
        seed: Of this run.
        batch_size: For evaluation and for the outputs of frozen teachers.
        labels_withheld: Students are shown no labels.
        compile: Compile learners' encoders.
        teacher_cache: Compute a frozen teacher's outputs once per sample where that changes nothing.
        cache_limit: Bytes that one teacher's outputs may take.
        checkpoint_seconds: Time between checkpoints within a stage.
        log_every: Batches that one logged value is the mean of.
        skipped_steps: Steps that are not finite and may be skipped; None to stop at the first.
        sharded: Divide the weights of encoders among processes.
    """

    seed: int
    batch_size: int
    labels_withheld: bool = False
    compile: bool = False
    teacher_cache: bool = True
    cache_limit: int = 4 << 30
    checkpoint_seconds: float = 30.0
    log_every: int = 10
    skipped_steps: int | None = None
    sharded: bool = False
