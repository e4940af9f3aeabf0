"""The arms of a seed: the engine's settings for them, and the comparison of their lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdcore.errors import TrainingError
from kdcore.recipe.models import Recipe
from kdcore.training.settings import Settings


def settings_of(recipe: Recipe, seed: int) -> Settings:
    """The engine's settings for one seed of a recipe."""
    engine, data = recipe.engine, recipe.data
    return Settings(
        seed,
        data.batch_size,
        data.labels == "withheld",
        engine.compile,
        engine.teacher_cache,
        data.memory_bytes,
        engine.checkpoint_seconds,
        engine.log_every,
        engine.skipped_steps if engine.on_nan == "skip-step" else None,
    )


def compare_lengths(distilled: Mapping[str, Sequence[Any]], baseline: Mapping[str, Sequence[Any]]) -> list[str]:
    """Compare the lengths of training of each student that both arms have.

    Args:
        distilled: Student → its epochs, its optimizer steps, and the reason if it was stopped before its last epoch.
        baseline: Likewise, without distillation.

    Returns:
        A sentence for each student that was stopped early in either arm, which both may be by the same rule.

    Raises:
        TrainingError: If other lengths differ.
    """
    said = []
    for name, (epochs, steps, ended) in baseline.items():
        if name not in distilled:
            continue
        others, other_steps, other_ended = distilled[name]
        if ended or other_ended:
            said.append(
                f"{name} was trained for {epochs} epochs ({steps} steps) without distillation and for {others} ({other_steps}) "
                "with it: both arms had the same limit and could end early by the same rule"
            )
        elif (epochs, steps) != (others, other_steps):
            raise TrainingError(
                f"{name} was trained for {others} epochs and {other_steps} steps with distillation, and for {epochs} epochs "
                f"and {steps} steps without; a baseline must have the same"
            )
    return said
