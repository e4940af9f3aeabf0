"""The engine's options besides the stages."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The engine's options besides the stages.

    Args:
        seed: Seed of the run.
        batch_size: Samples per batch for evaluation and for cached teachers' outputs.
        labels_withheld: Withhold labels from students.
        compile: Compile the learners' encoders with `torch.compile`.
        teacher_cache: Cache the outputs of frozen teachers whose outputs for a sample never change.
        cache_limit: Largest size of the cached outputs, in bytes; teachers run live if they would exceed it.
        checkpoint_seconds: Seconds between checkpoints within a stage; 0 to save after every optimizer step.
        log_every: Number of batches averaged into one logged value.
        skipped_steps: Number of steps with NaN or infinite values that may be skipped; None to stop at the first.
        sharded: Shard encoders' weights across processes (FSDP2).
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
