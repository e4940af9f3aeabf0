"""Checks of a run before its first training step that need more than the recipe: the samples, processes or networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from kdcore.contracts.training import Training
from kdcore.data.table import Table
from kdcore.errors import DataError, Problem, RecipeError, TrainingError
from kdcore.recipe.build import module_meant
from kdcore.recipe.plan import DISTILLED, Plan
from kdcore.recipe.schedule_checks import place_in_schedule
from kdcore.training.assembly import Assembly
from kdcore.training.learner import Learner
from kdcore.training.parameter_groups import LOSSES, unmatched
from kdcore.training.participants import Distiller
from kdcore.training.sharding import undividable
from kdcore.training.validation import by_loss_only, primary_and_loss

UNLABELLED = "there are no labelled validation samples"

NEEDED_FOR = {
    "select": "select the best epoch",
    "early_stopping": "stop early",
    "learning_rate": "let the learning rate follow a validation metric",
}
"""Key of a training → what it needs a validation split for."""


def check_run(assembly: Assembly, table: Table, split: str, processes: int) -> None:
    """Check the splits and the number of processes.

    Raises:
        DataError: If there is no split to evaluate on.
        TrainingError: If the run would give another result in several processes.
        RecipeError: If epochs are chosen by a metric that is undefined, or no teacher learns from a split that is set apart.
    """
    if not len(table.rows.get(split, ())):
        raise DataError(
            f"there is no {split} split ({table.splits.rule}): hold out training subjects for it, "
            "e.g. data.protocol.validation_subjects=2"
        )
    if problem := next(_process_problems(assembly.plan, processes), ""):
        raise TrainingError(problem)
    if problems := list(dict.fromkeys(_undefined_metrics(assembly, table))) or list(_idle_splits(assembly, table)):
        raise RecipeError(problems)


def _process_problems(plan: Plan, processes: int) -> Iterator[str]:
    """Yield options for which processes would have different numbers of samples, or sharded weights another result."""
    recipe, members = plan.recipe, plan.participants.values()
    stages = plan.stages[DISTILLED]
    terms = [term for each in members for term in each.terms]
    if processes > 1:
        if recipe.data.missing == "mask":
            yield "data.missing: mask needs a single process: the processes would have different numbers of samples"
        if recipe.data.mix:
            yield "data.mix needs a single process: a sample's partner may be with another one"
        if any(term.needs.forward_passes for term in terms):
            yield "losses that run networks on inputs of their own need a single process"
    for stage in stages:
        rule = next((each.gradients for each in stage.training.values() if each.gradients != "sum"), "")
        if rule and (processes > 1 or recipe.engine.precision == "16-mixed"):
            yield f"stage {stage.name}: gradients: {rule} requires a single process, in 32-true or bf16-mixed"
        if stage.batch_size % processes:
            yield f"stage {stage.name}: batch_size {stage.batch_size} cannot be shared equally by {processes} processes"
    if recipe.engine.strategy == "fsdp":
        if recipe.fusion:
            yield "engine.strategy: fsdp cannot divide teachers that a fusion runs in stages; use ddp, or no fusion"
        if any(each.spec.classifier_from for each in members) or any(term.needs.classifiers for term in terms):
            yield "engine.strategy: fsdp cannot divide networks whose classifiers others read; use ddp"
        if any(each.spec.starts_from for each in members):
            yield "engine.strategy: fsdp cannot start a network from the weights of another; use ddp"
        for stage in stages:
            for why in filter(None, (undividable(each.optimizer) for each in stage.training.values())):
                yield f"stage {stage.name}: engine.strategy: fsdp does not go with {why}"


def _idle_splits(assembly: Assembly, table: Table) -> Iterator[Problem]:
    """Yield a problem if a protocol sets a split apart for teachers, and none learns from it."""
    stages = assembly.plan.stages[DISTILLED]
    trains_teachers = any(set(stage.learners) & set(assembly.plan.teachers) for stage in stages)
    idle = set(table.rows) - {"train", "validation", "test"} - {stage.split for stage in stages}
    if trains_teachers and idle:
        what = f"no participant learns from the {min(idle)!r} split ({table.splits.rule})"
        yield assembly.builder.problem("schedule", what, f"set schedule.teacher_split to {min(idle)!r}")


def _undefined_metrics(assembly: Assembly, table: Table) -> Iterator[Problem]:
    """Yield a problem for each stage whose epochs are chosen by a metric that the validation split leaves undefined."""
    withheld = set(assembly.plan.students) if assembly.recipe.data.labels == "withheld" else set()
    for stage in assembly.plan.stages[DISTILLED]:
        for name, training in stage.training.items():
            if not (key := training.reads_validation):
                continue
            if reason := UNLABELLED if withheld & set(stage.learners) else _undefined_metric(table, name, training):
                why = f"stage {stage.name!r} cannot {NEEDED_FOR[key]}: {reason}"
                hint = "hold others out, e.g. data.protocol.validation_subjects=1"
                hint += ", or select: last" if key == "select" else ""
                yield assembly.builder.problem(f"{place_in_schedule(assembly.recipe, stage.name)}.{key}", why, hint)


def _undefined_metric(table: Table, learner: str, training: Training) -> str:
    """Return why a learner's metric is undefined on the validation split; empty if it is defined."""
    rows = table.labelled_rows("validation")
    if not len(rows):
        return UNLABELLED
    labels = table.labels[table.complete_rows([learner], rows)].cpu().numpy()
    if not len(labels):
        return f"no labelled validation sample has the signals of {learner}"
    if table.target.is_classes or by_loss_only(training):
        return ""
    value, _ = primary_and_loss(np.zeros(labels.shape), labels, table.target)
    title = table.target.metric(table.target.primary).title
    return f"{title} is undefined on the validation samples" if np.isnan(value) else ""


def note_answerless(assembly: Assembly, answerless: Sequence[str]) -> None:
    """Note participants whose predictions mean nothing, and which are not evaluated.

    Raises:
        RecipeError: If the epochs of one are chosen by its predictions.
    """
    plan, problems = assembly.plan, []
    for name in answerless:
        alone = set(plan.students) <= set(answerless) and name in plan.students
        what = "its accuracy means nothing" if alone else "it is not evaluated"
        assembly.note(f"{name}: no term trains the layers that its predictions come from, so {what}")
        for stage in plan.stages[DISTILLED]:
            if name in stage.training and (key := stage.training[name].reads_validation):
                why = f"{name!r} cannot {NEEDED_FOR[key]}: no term trains the layers that its predictions come from"
                problems.append(assembly.builder.problem(f"{place_in_schedule(plan.recipe, stage.name)}.{key}", why))
    if problems:
        raise RecipeError(list(dict.fromkeys(problems)))


def check_groups(assembly: Assembly, distiller: Distiller) -> None:
    """Check that parameter groups match modules, and that the optimizer has their options.

    Raises:
        RecipeError: If a pattern matches no trainable parameter.
        TrainingError: If the optimizer lacks an option.
    """
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
