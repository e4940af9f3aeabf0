"""Checks of the stages of a schedule against the graph of participants."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from kdcore.contracts.optimizers import problem_with
from kdcore.contracts.protocol import HELD_OUT
from kdcore.contracts.schedule import Graph, Schedule, Stage
from kdcore.contracts.training import Training
from kdcore.errors import PluginError
from kdcore.recipe.graph import LearnerTerm, StagePlan, stage_plans
from kdcore.recipe.models import Recipe


def stages_of(schedule: Schedule, graph: Graph) -> tuple[Stage, ...]:
    """Return the stages of a schedule for a graph of participants."""
    return tuple(schedule.stages(graph))


def place_in_schedule(recipe: Recipe, stage: str) -> str:
    """Return the recipe path of the options for a stage, as precisely as possible; of all stages if `stage` is empty."""
    if recipe.schedule:
        return f"schedule.{stage}" if stage in recipe.schedule.options else "schedule"
    specs = recipe.participants
    own = [name for name in stage.split("+") if name in specs and specs[name].training]
    return f"{recipe.path_of(own[0])}.training" if own else "training"


def unread_training(
    recipe: Recipe, graph: Graph, stages: Sequence[Stage], stages_for: Callable[[Graph], Sequence[Stage]]
) -> Iterator[tuple[str, str]]:
    """Yield (problem, hint) if the recipe's `training` differs from the default, and its schedule ignores it.

    Args:
        recipe: The recipe.
        graph: Its graph of participants.
        stages: Stages of its schedule.
        stages_for: Returns the stages for another graph.
    """
    own = recipe.training
    if not recipe.schedule or not stages or own == Training() or any(each.training == own for each in stages):
        return
    with suppress(PluginError, ValueError):  # a schedule that refuses the default training reads it
        if tuple(stages_for(replace(graph, training=Training()))) == tuple(stages):
            options = [each.name for each in stages if each.name in recipe.schedule.options]
            hint = f"set it in schedule.{options[-1]}, or remove one of them" if options else "remove one of them"
            yield "'training' has no effect, since the schedule sets the training of each stage", hint


def schedule_problems(
    recipe: Recipe, graph: Graph, stages: Sequence[Stage], terms: Mapping[str, list[LearnerTerm]]
) -> Iterator[tuple[str, str, str]]:
    """Yield contradictions between a schedule and the graph as (name of the stage or "", problem, hint)."""
    name = f"the schedule {recipe.schedule.name!r}" if recipe.schedule else "the default schedule"
    if malformed := [problem for stage in stages for problem in _malformed(graph, stage, name)]:
        yield from dict.fromkeys(malformed)
        return
    trained: set[str] = set()
    for stage in stages:
        if stage.split in HELD_OUT:
            what = f"{name} trains {quoted(stage.learners)} on the {stage.split} split, which is held out"
            yield "", what, "learn from 'train', or from a split that the protocol sets apart"
        for each in stage.learners:
            if not graph.nodes[each].trains:
                yield stage.name, f"{name} trains {each!r} in stage {stage.name!r}, which has nothing to train", ""
            node, spec = graph.nodes[each], recipe.participants[each]
            early = [s for s in node.sources if graph.nodes[s].trains and s not in {*trained, *stage.learners}]
            for source, reason in (
                (spec.classifier_from, "whose classifier it uses"),
                (node.starts_from, "whose weights it starts from"),
            ):
                if source in stage.learners:
                    yield stage.name, f"{name} trains {each!r} together with {source!r}, {reason}", f"train {source!r} before"
            if early:
                verb = "learns" if set(early) <= set(node.learns_from) else "starts"
                what = f"{name} trains {each!r} in stage {stage.name!r}, before {quoted(early)}, which it {verb} from"
                yield stage.name, what, "leave out 'schedule' to train in the order of the graph, or change 'learns_from'"
        trained |= set(stage.learners)
    untrained = [each for each, node in graph.nodes.items() if node.trains and each not in trained]
    if untrained:
        yield "", f"{name} never trains {quoted(untrained)}", ""
        return
    yield from dict.fromkeys(_lengths(recipe, graph, stage_plans(recipe, graph, stages, dict(terms)), name))
    yield from _withheld_labels(recipe, stages, terms)


def _malformed(graph: Graph, stage: Stage, name: str) -> Iterator[tuple[str, str, str]]:
    """Yield problems of a single stage."""
    if not stage.learners:
        yield stage.name, f"{name} has no learners in stage {stage.name!r}", ""
    if stage.epochs < 1:
        yield stage.name, f"{name} gives stage {stage.name!r} {stage.epochs} epochs", "a stage needs at least 1 epoch"
    for index, each in enumerate(stage.learners):
        if each not in graph.nodes:
            yield stage.name, f"{name} trains {each!r} in stage {stage.name!r}, but there is no such participant", ""
        elif each in stage.learners[:index]:
            yield stage.name, f"{name} lists {each!r} twice in stage {stage.name!r}", ""
    if problem := problem_with(stage.training.optimizer):
        yield stage.name, f"{name} in stage {stage.name!r}: {problem}", ""


def _lengths(recipe: Recipe, graph: Graph, plans: Sequence[StagePlan], name: str) -> Iterator[tuple[str, str, str]]:
    for plan in plans:
        for key, values in _shared(recipe, plan).items():
            if len(set(values.values())) > 1:
                yield plan.name, f"{quoted(plan.learners)} are trained together and need the same {key}, not {values}", ""
        for each in plan.learners:
            yield from _unreached(plan, each)
            yield from _in_several_stages(plan, plans, each)
            own, total = graph.nodes[each].training, plan.training[each].epochs
            if own and own.epochs != total:
                yield "", f"{name} trains {each!r} for {total} epochs, but its own training sets {own.epochs}", ""
            together = {*graph.circle(each), *(graph.fused if each in graph.fused else ())}
            apart = [other for other in together if graph.nodes[other].trains and other not in plan.learners]
            if apart and any(graph.nodes[other].training for other in (*apart, each)):
                what = f"{quoted([each, *apart])} are trained together and need the same epochs and batch_size"
                yield "", what, ""
                return


def _shared(recipe: Recipe, plan: StagePlan) -> dict[str, dict[str, Any]]:
    """Return the options that all learners of a stage must share, as option → learner → value."""
    training = plan.training.items()
    return {
        "batch_size": {each: own.batch_size or recipe.data.batch_size for each, own in training},
        "accumulate": {each: own.accumulate for each, own in training},
        "early_stopping": {each: own.early_stopping for each, own in training},
    }


def _in_several_stages(plan: StagePlan, plans: Sequence[StagePlan], learner: str) -> Iterator[tuple[str, str, str]]:
    """Yield problems of options that require a single stage for a learner trained in several."""
    key, count = plan.training[learner].one_stage, sum(learner in other.learners for other in plans)
    if key and count > 1:
        yield plan.name, f"{key} requires a single stage for {learner!r}, which is trained in {count}", ""


def _unreached(plan: StagePlan, learner: str) -> Iterator[tuple[str, str, str]]:
    """Yield problems of learning-rate milestones, warmup or frozen epochs that last longer than the training."""
    rate, epochs = plan.training[learner].learning_rate, plan.training[learner].epochs
    what = f"{learner!r} learns for {epochs} epoch{'s' if epochs > 1 else ''}"
    if late := [each for each in rate.milestones if each >= epochs]:
        yield plan.name, f"{what} and does not reach the milestone {late[0]} of its learning rate", "epochs count from 0"
    if late := [each.frozen_epochs for each in plan.training[learner].parameter_groups if each.frozen_epochs >= epochs]:
        hint = "to freeze modules permanently, set 'freeze' of the participant"
        yield plan.name, f"{what}, and a parameter group is frozen for {late[0]}", hint
    if rate.warmup >= epochs:
        message = f"{what}, and its learning rate warms up for {rate.warmup:g}"
        yield plan.name, message, "the warmup must end before training does"


def _withheld_labels(
    recipe: Recipe, stages: Sequence[Stage], terms: Mapping[str, list[LearnerTerm]]
) -> Iterator[tuple[str, str, str]]:
    """Check that no teacher reads labels that are withheld from students."""
    if recipe.data.labels != "withheld":
        return
    students = set(recipe.student_specs)
    readers = {name for name, own in terms.items() if any(term.term.active and term.needs.labels for term in own)} - students
    withheld = {stage.split for stage in stages if students & set(stage.learners)}
    read = {stage.split for stage in stages if readers & set(stage.learners)}
    hint = (
        "teachers need a split of their own: a protocol that sets one apart, and schedule.teacher_split; "
        "or give the labels, and students losses that read none"
    )
    for split in sorted(withheld & read):
        yield "", f"teachers learn from the labels of the {split!r} split, which are withheld from students", hint


def quoted(names: Sequence[str]) -> str:
    """Return the unique names in quotes, joined by "and"."""
    return " and ".join(map(repr, dict.fromkeys(names)))
