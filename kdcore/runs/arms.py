"""The arms of a seed: the engine's settings for them, their evaluation, and the comparison of their lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kdcore.cache import cache_folder
from kdcore.errors import TrainingError
from kdcore.recipe.models import Recipe
from kdcore.recipe.named_files import file_hashes
from kdcore.recipe.plan import Plan
from kdcore.runs.context import RunContext
from kdcore.runs.outcome import Outcome
from kdcore.training.assembly import parameter_counts
from kdcore.training.evaluation import predict
from kdcore.training.fabric import peak_memory
from kdcore.training.origins import copy_origins
from kdcore.training.participants import Distiller
from kdcore.training.settings import Settings
from kdcore.training.trained_teachers import TrainedStages

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def settings_of(recipe: Recipe, seed: int) -> Settings:
    """The engine's settings for one seed of a recipe."""
    engine, data = recipe.engine, recipe.data
    return Settings(
        seed=seed,
        batch_size=data.batch_size,
        labels_withheld=data.labels == "withheld",
        compile=engine.compile,
        teacher_cache=engine.teacher_cache,
        cache_limit=data.memory_bytes,
        checkpoint_seconds=engine.checkpoint_seconds,
        log_every=engine.log_every,
        skipped_steps=engine.skipped_steps if engine.on_nan == "skip-step" else None,
        sharded=engine.strategy == "fsdp",
    )


def trained_stages(plan: Plan, seed: int, retrain: bool) -> TrainedStages | None:
    """The store of trained teachers of a seed; None if the recipe or the user disabled it."""
    if retrain or not plan.recipe.engine.reuse_teachers:
        return None
    filled = plan.filled
    sections = {key: filled[key] for key in ("teachers", "fusion", "teacher_losses", "class_embeddings", "engine")}
    data = {key: filled["data"][key] for key in ("batch_size", "sampler", "mix")}
    files = file_hashes(sections)
    return TrainedStages(cache_folder() / "teachers", {**sections, "seed": seed, **data, "files": files})


def evaluate_arm(
    run: RunContext,
    fabric: Fabric,
    arm: str,
    distiller: Distiller,
    seconds: float,
    notes: Sequence[str],
    answerless: Sequence[str] = (),
) -> Outcome:
    """Evaluate the participants of an arm on the run's split. This is the only place that evaluates the test split.

    Participants whose logits no term trains (`answerless`) are left out, unless no student would remain.
    """
    table = run.table
    rows = table.rows[run.split]
    copies = [name for name in distiller.origins if run.recipe.specs[name].is_copy]
    copy_origins(distiller, copies)
    lacking = {name: int((~outputs.covers(rows)).sum()) for name, outputs in distiller.stored.items()}
    stored = [name for name, count in lacking.items() if not count]
    unseen = {name: f"{count} of {len(rows)} {run.split} samples" for name, count in lacking.items() if count}
    teachers = [name for name in distiller.teachers if name not in answerless and len(table.complete_rows([name], rows))]
    students = [name for name in distiller.students if name not in answerless] or list(distiller.students)
    probabilities = predict(distiller, [*teachers, *stored, *students], rows, table, run.recipe.data.batch_size, fabric)
    networks = {name: distiller.participant(name) for name in distiller.networks}
    return Outcome(
        arm=arm,
        probabilities=probabilities,
        labels=table.labels[rows].cpu().numpy(),
        keys=[str(table.keys[row]) for row in rows.tolist()],
        parameters=parameter_counts(networks),
        seconds=seconds,
        teachers=[*teachers, *stored],
        students=students,
        memory=peak_memory(fabric.device),
        trained=parameter_counts(networks, trained=True),
        notes=[*notes, *(f"{name} is not evaluated: its stored outputs lack {what}" for name, what in unseen.items())],
        target=table.target,
        names=() if table.target.is_classes else table.classes,
        origins=[name for name in students if any(distiller.origins.get(other) == name for other in students)],
        copies=[name for name in teachers if name in copies],
    )


def compare_lengths(
    distilled: Mapping[str, Sequence[Any]], baseline: Mapping[str, Sequence[Any]], extra: Mapping[str, int]
) -> list[str]:
    """Check that each student was trained for the same time in both arms.

    Args:
        distilled: Student → (epochs, optimizer steps, reason if it ended early) in the distilled arm.
        baseline: The same for the baseline.
        extra: Student → extra epochs of its baseline, which replace those of the participant that the student starts from.

    Returns:
        A sentence for each student that ended early in either arm.

    Raises:
        TrainingError: If epochs or steps differ although neither arm ended early.
    """
    notes = []
    for name, (epochs, steps, ended) in baseline.items():
        if name not in distilled:
            continue
        other_epochs, other_steps, other_ended = distilled[name]
        wanted = other_epochs + extra.get(name, 0)
        if ended or other_ended:
            notes.append(
                f"{name} was trained for {epochs} epochs ({steps} steps) without distillation and for {other_epochs} "
                f"({other_steps}) with it: {_limits(extra.get(name, 0))} could end early by the same rule"
            )
        elif epochs != wanted or steps * other_epochs != other_steps * epochs:
            raise TrainingError(
                f"{name} was trained for {other_epochs} epochs and {other_steps} steps with distillation, and for {epochs} "
                f"epochs and {steps} steps without; a baseline must have the same"
                + (f" and {extra[name]} epochs more" if name in extra else "")
            )
    return notes


def _limits(extra: int) -> str:
    return f"the first had a limit of {extra} epochs more, and both" if extra else "both arms had the same limit and"
