"""Preparation of a run: data, participants and checks, up to the first training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from kdcore.contracts.training import Training
from kdcore.data.table import Table
from kdcore.errors import DataError, RecipeError, TrainingError
from kdcore.recipe.build import Builder, module_meant
from kdcore.recipe.models import EngineSpec
from kdcore.recipe.plan import DISTILLED, Plan
from kdcore.recipe.schedule_checks import place_in_schedule
from kdcore.runs.records import refuse_other_recordings
from kdcore.training.assembly import Assembly
from kdcore.training.fabric import OneCpu, launch
from kdcore.training.learner import Learner
from kdcore.training.parameter_groups import LOSSES, unmatched
from kdcore.training.participants import Distiller
from kdcore.training.phases import DATA, Phases
from kdcore.training.precision_check import check_precision
from kdcore.training.preflight import Preflight, preflight
from kdcore.training.randomness import make_deterministic
from kdcore.training.sharding import undividable
from kdcore.training.validation import by_loss_only, primary_and_loss

if TYPE_CHECKING:
    from lightning_fabric import Fabric

UNLABELLED = "there are no labelled validation samples"

NEEDED_FOR = {
    "select": "select the best epoch",
    "early_stopping": "stop early",
    "learning_rate": "let the learning rate follow a validation metric",
}
"""Key of a training → what it needs a validation split for."""


@dataclass(frozen=True)
class Prepared:
    """A prepared run.

    Args:
        assembly: Constructs the participants.
        table: Prepared samples of all splits, on the run's device.
        checks: Result of the checks before training.
        distiller: The checked participants of the first seed's distilled arm, untrained.
    """

    assembly: Assembly
    table: Table
    checks: Preflight
    distiller: Distiller


def prepare(
    plan: Plan,
    builder: Builder,
    fabric: Fabric | OneCpu,
    split: str,
    folder: Path | None,
    reading: Callable[[int, int, str], None],
    phases: Phases,
) -> Prepared:
    """Launch the processes, prepare the data, construct the participants, and check them on a few batches.

    Args:
        plan: The validated plan of the run.
        builder: Constructs the recipe's components.
        fabric: Devices, precision, processes.
        split: Split to evaluate on.
        folder: Folder of the run to resume or extend; None for a new run.
        reading: Progress callback, called with (done, total, what).
        phases: Timer of the run.

    Raises:
        KdcoreError: If the recipe or the recordings are invalid. Nothing except prepared data has been written.
    """
    recipe = builder.recipe
    launch(fabric)
    _set_torch(recipe.engine)
    dataset = builder.dataset()
    with builder.locating_data_errors():
        assembly = Assembly(builder, dataset, plan)
        with phases.during(DATA):
            table = assembly.load_table(reading)
    _refuse_missing_split(table, split)
    _refuse_unequal_shares(assembly, fabric.world_size)
    _refuse_undividable(assembly)
    _require_defined_metrics(assembly, table)
    _refuse_idle_split(assembly, table)
    if folder:
        refuse_other_recordings(folder, table)
    table = table.to(fabric.device, recipe.data.memory_bytes)
    withheld = recipe.data.labels == "withheld"
    with builder.locating_data_errors():
        distiller = assembly.distiller(table, recipe.seeds[0], DISTILLED, fabric.device)
        _refuse_unmatched_groups(assembly, distiller)
        checks = preflight(distiller, assembly.plan.stages[DISTILLED], table, recipe.data.batch_size, withheld)
    _note_answerless(assembly, checks)
    _note_terms(assembly, distiller, checks)
    check_precision(distiller, table, table.rows["train"][: recipe.data.batch_size], fabric, recipe.engine.precision)
    return Prepared(assembly, table, checks, distiller)


def _note_terms(assembly: Assembly, distiller: Distiller, checks: Preflight) -> None:
    """Report terms whose loss has parameters without a gradient, is 0 at first, or keeps state that is not saved."""
    for check in checks.terms:
        term = distiller.describe_term(check.learner, check.term)
        if check.idle and check.samples:
            names = ", ".join(map(repr, check.idle[:3])) + (" …" if len(check.idle) > 3 else "")
            why = "which is expected only if a ramp starts at 0 or the loss starts at its minimum"
            assembly.note(f"{term}: no gradient reaches the loss's parameters {names} on the first batch, {why}")
        if check.satisfied:
            assembly.note(f"{term}: its value and its gradient are 0 on the first batches")
        if check.unsaved:
            names = ", ".join(check.unsaved[:3])
            change = "change" if len(check.unsaved) > 1 else "changes"
            assembly.note(
                f"{term}: {names} {change} at each call without being saved, so a resumed run may differ; use register_buffer"
            )


def _note_answerless(assembly: Assembly, checks: Preflight) -> None:
    """Report participants that are not evaluated, and refuse to choose their epochs by their predictions."""
    problems = []
    for name in checks.answerless:
        alone = set(assembly.plan.students) <= set(checks.answerless) and name in assembly.plan.students
        what = "its accuracy means nothing" if alone else "it is not evaluated"
        assembly.note(f"{name}: no term trains the layers that its predictions come from, so {what}")
        for stage in assembly.plan.stages[DISTILLED]:
            key = stage.training[name].reads_validation if name in stage.training else ""
            if key:
                why = f"{name!r} cannot {NEEDED_FOR[key]}: no term trains the layers that its predictions come from"
                problems.append(assembly.builder.problem(f"{place_in_schedule(assembly.recipe, stage.name)}.{key}", why))
    if problems:
        raise RecipeError(list(dict.fromkeys(problems)))


def _set_torch(engine: EngineSpec) -> None:
    torch.set_default_dtype(torch.float32)  # a plugin may have set others when it was imported
    torch.set_grad_enabled(True)
    if engine.threads:
        torch.set_num_threads(engine.threads)
    if engine.deterministic:
        make_deterministic(engine.compile)


def _refuse_missing_split(table: Table, split: str) -> None:
    if not len(table.rows.get(split, ())):
        raise DataError(
            f"there is no {split} split ({table.splits.rule}): hold out training subjects for it, "
            "e.g. data.protocol.validation_subjects=2"
        )


def _refuse_unequal_shares(assembly: Assembly, processes: int) -> None:
    """Every process must get as many samples of each batch as any other."""
    if processes > 1 and assembly.recipe.data.missing == "mask":
        raise TrainingError("data.missing: mask needs a single process: the processes would have different numbers of samples")
    if processes > 1 and assembly.recipe.data.mix:
        raise TrainingError("data.mix needs a single process: a sample's partner may be with another one")
    if processes > 1 and any(term.needs.forward_passes for each in assembly.plan.participants.values() for term in each.terms):
        raise TrainingError("losses that run networks on inputs of their own need a single process")
    for stage in assembly.plan.stages[DISTILLED]:
        rule = next((each.gradients for each in stage.training.values() if each.gradients != "sum"), "")
        if rule and (processes > 1 or assembly.recipe.engine.precision == "16-mixed"):
            raise TrainingError(f"stage {stage.name}: gradients: {rule} requires a single process, in 32-true or bf16-mixed")
        if stage.batch_size % processes:
            size = stage.batch_size
            raise TrainingError(f"stage {stage.name}: batch_size {size} cannot be shared equally by {processes} processes")


def _refuse_undividable(assembly: Assembly) -> None:
    """Refuse to shard weights where the result could differ from that of one process."""
    if assembly.recipe.engine.strategy != "fsdp":
        return
    if assembly.recipe.fusion:
        raise TrainingError("engine.strategy: fsdp cannot divide teachers that a fusion runs in stages; use ddp, or no fusion")
    members = assembly.plan.participants.values()
    if any(each.spec.classifier_from or any(term.needs.classifiers for term in each.terms) for each in members):
        raise TrainingError("engine.strategy: fsdp cannot divide networks whose classifiers others read; use ddp")
    if any(each.spec.starts_from for each in members):
        raise TrainingError("engine.strategy: fsdp cannot start a network from the weights of another; use ddp")
    for stage in assembly.plan.stages[DISTILLED]:
        for training in stage.training.values():
            if why := undividable(training.optimizer):
                raise TrainingError(f"stage {stage.name}: engine.strategy: fsdp does not go with {why}")


def _refuse_idle_split(assembly: Assembly, table: Table) -> None:
    """A split that a protocol sets apart for teachers is there for them to learn from."""
    stages = assembly.plan.stages[DISTILLED]
    trains_teachers = any(set(stage.learners) & set(assembly.plan.teachers) for stage in stages)
    idle = set(table.rows) - {"train", "validation", "test"} - {stage.split for stage in stages}
    if trains_teachers and idle:
        what = f"no participant learns from the {min(idle)!r} split ({table.splits.rule})"
        raise RecipeError([assembly.builder.problem("schedule", what, f"set schedule.teacher_split to {min(idle)!r}")])


def _require_defined_metrics(assembly: Assembly, table: Table) -> None:
    """Refuse to choose epochs by a metric that the validation split leaves undefined."""
    withheld = assembly.plan.students if assembly.recipe.data.labels == "withheld" else ()
    problems = []
    for stage in assembly.plan.stages[DISTILLED]:
        for name, training in stage.training.items():
            if not (key := training.reads_validation):
                continue
            reason = UNLABELLED if set(stage.learners) & set(withheld) else _undefined_metric(table, name, training)
            if reason:
                why = f"stage {stage.name!r} cannot {NEEDED_FOR[key]}: {reason}"
                hint = "hold others out, e.g. data.protocol.validation_subjects=1" + (
                    ", or select: last" if key == "select" else ""
                )
                problems.append(assembly.builder.problem(f"{place_in_schedule(assembly.recipe, stage.name)}.{key}", why, hint))
    if problems:
        raise RecipeError(list(dict.fromkeys(problems)))


def _undefined_metric(table: Table, learner: str, training: Training) -> str:
    """Return why a learner's metric is undefined on the validation split; empty if it is defined."""
    rows = table.labelled_rows("validation")
    if not len(rows):
        return UNLABELLED
    there = table.complete([learner], rows)
    labels = table.labels[rows if there is None else rows[there]].cpu().numpy()
    if not len(labels):
        return f"no labelled validation sample has the signals of {learner}"
    if table.target.is_classes or by_loss_only(training):
        return ""
    value, _ = primary_and_loss(np.zeros(labels.shape), labels, table.target)
    title = table.target.metric(table.target.primary).title
    return f"{title} is undefined on the validation samples" if np.isnan(value) else ""


def _refuse_unmatched_groups(assembly: Assembly, distiller: Distiller) -> None:
    """Refuse parameter groups without matching modules, or with options that the optimizer lacks."""
    problems = []
    learners = [(stage, *each) for stage in assembly.plan.stages[DISTILLED] for each in stage.training.items()]
    nothing = [unmatched(distiller.modules_of(name), training) for _, name, training in learners]
    for (stage, name, training), faults in zip(learners, nothing, strict=True):
        if not faults:
            Learner.of(name, distiller.modules_of(name), training)  # which the optimizer may refuse
        sharing = [found for (*_, other), found in zip(learners, nothing, strict=True) if other == training]
        where = f"{place_in_schedule(assembly.recipe, stage.name)}.parameter_groups"
        for index, place, pattern in faults:
            what = f"no trainable parameter of {name}'s encoder matches {pattern!r}"
            hint = module_meant(pattern, distiller.participant(name).encoder)
            if pattern.startswith(LOSSES):
                if any((index, place, pattern) not in found for found in sharing):
                    continue  # a loss of another learner with the same options
                what = f"no trainable parameter of {name}'s losses matches {pattern!r}"
                owners = [term for term, loss in distiller.losses(name).items() if any(True for _ in loss.parameters())]
                hint = f"losses with parameters: {', '.join(LOSSES + term for term in owners) or 'none'}"
            problems.append(assembly.builder.problem(f"{where}[{index}].modules[{place}]", what, hint))
    if problems:
        raise RecipeError(list(dict.fromkeys(problems)))
