"""The stages of a schedule, and their checks against the graph of participants."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

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


def default_stages(graph: Graph) -> Iterator[Stage]:
    """Yield the stages of a recipe without schedule: one for each of `Graph.groups`, sources first, named after its members."""
    for group in graph.groups():
        first = graph.nodes[group[0]]
        training = first.training or graph.training
        yield Stage("+".join(group), group, training, training.epochs, first.split or "train")


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


class StageProblem(NamedTuple):
    """A contradiction between a schedule and the graph of participants.

    Args:
        stage: Name of the stage; empty if it concerns several.
        message: The problem.
        hint: How to solve it.
    """

    stage: str
    message: str
    hint: str = ""


def schedule_problems(
    recipe: Recipe, graph: Graph, stages: Sequence[Stage], terms: Mapping[str, list[LearnerTerm]]
) -> Iterator[StageProblem]:
    """Yield contradictions between a schedule and the graph."""
    name = f"the schedule {recipe.schedule.name!r}" if recipe.schedule else "the default schedule"
    if malformed := [problem for stage in stages for problem in _malformed(graph, stage, name)]:
        yield from dict.fromkeys(malformed)
        return
    trained: set[str] = set()
    for stage in stages:
        if stage.split in HELD_OUT:
            what = f"{name} trains {quoted(stage.learners)} on the {stage.split} split, which is held out"
            yield StageProblem("", what, "learn from 'train', or from a split that the protocol sets apart")
        for learner in stage.learners:
            yield from _order(recipe, graph, stage, learner, trained, name)
        trained |= set(stage.learners)
    untrained = [each for each, node in graph.nodes.items() if node.trains and each not in trained]
    if untrained:
        yield StageProblem("", f"{name} never trains {quoted(untrained)}")
        return
    yield from dict.fromkeys(_lengths(recipe, graph, stage_plans(recipe, graph, stages, dict(terms)), name))
    yield from _withheld_labels(recipe, stages, terms)


def _malformed(graph: Graph, stage: Stage, name: str) -> Iterator[StageProblem]:
    if not stage.learners:
        yield StageProblem(stage.name, f"{name} has no learners in stage {stage.name!r}")
    if stage.epochs < 1:
        what = f"{name} gives stage {stage.name!r} {stage.epochs} epochs"
        yield StageProblem(stage.name, what, "a stage needs at least 1 epoch")
    for index, each in enumerate(stage.learners):
        if each not in graph.nodes:
            what = f"{name} trains {each!r} in stage {stage.name!r}, but there is no such participant"
            yield StageProblem(stage.name, what)
        elif each in stage.learners[:index]:
            yield StageProblem(stage.name, f"{name} lists {each!r} twice in stage {stage.name!r}")
    if problem := problem_with(stage.training.optimizer):
        yield StageProblem(stage.name, f"{name} in stage {stage.name!r}: {problem}")


def _order(recipe: Recipe, graph: Graph, stage: Stage, learner: str, trained: set[str], name: str) -> Iterator[StageProblem]:
    """Yield problems of a learner that has nothing to train, or whose sources are not trained before it."""
    node, in_stage = graph.nodes[learner], f"{name} trains {learner!r} in stage {stage.name!r}"
    if not node.trains:
        yield StageProblem(stage.name, f"{in_stage}, which has nothing to train")
    for source, reason in (
        (recipe.participants[learner].classifier_from, "whose classifier it uses"),
        (node.starts_from, "whose weights it starts from"),
    ):
        if source in stage.learners:
            what = f"{name} trains {learner!r} together with {source!r}, {reason}"
            yield StageProblem(stage.name, what, f"train {source!r} before")
    early = [each for each in node.sources if graph.nodes[each].trains and each not in {*trained, *stage.learners}]
    if early:
        verb = "learns" if set(early) <= set(node.learns_from) else "starts"
        hint = "leave out 'schedule' to train in the order of the graph, or change 'learns_from'"
        yield StageProblem(stage.name, f"{in_stage}, before {quoted(early)}, which it {verb} from", hint)


def _lengths(recipe: Recipe, graph: Graph, plans: Sequence[StagePlan], name: str) -> Iterator[StageProblem]:
    """Yield problems of learners that are trained together with different options, or for another time than they set."""
    for plan in plans:
        for key, default in (("batch_size", recipe.data.batch_size), ("accumulate", None), ("early_stopping", None)):
            values = {each: getattr(training, key) or default for each, training in plan.training.items()}
            if len(set(values.values())) > 1:
                what = f"{quoted(plan.learners)} are trained together and need the same {key}, not {values}"
                yield StageProblem(plan.name, what)
        for each in plan.learners:
            yield from _unreached(plan, each)
            key, count = plan.training[each].one_stage, sum(each in other.learners for other in plans)
            if key and count > 1:
                yield StageProblem(plan.name, f"{key} requires a single stage for {each!r}, which is trained in {count}")
            own, total = graph.nodes[each].training, plan.training[each].epochs
            if own and own.epochs != total:
                what = f"{name} trains {each!r} for {total} epochs, but its own training sets {own.epochs}"
                yield StageProblem("", what)
            together = {*graph.circle(each), *(graph.fused if each in graph.fused else ())}
            apart = [other for other in together if graph.nodes[other].trains and other not in plan.learners]
            if apart and any(graph.nodes[other].training for other in (*apart, each)):
                what = f"{quoted([each, *apart])} are trained together and need the same epochs and batch_size"
                yield StageProblem("", what)
                return


def _unreached(plan: StagePlan, learner: str) -> Iterator[StageProblem]:
    """Yield problems of learning-rate milestones, warmup or frozen epochs that last longer than the training."""
    rate, epochs = plan.training[learner].learning_rate, plan.training[learner].epochs
    what = f"{learner!r} learns for {epochs} epoch{'s' if epochs > 1 else ''}"
    if late := [each for each in rate.milestones if each >= epochs]:
        message = f"{what} and does not reach the milestone {late[0]} of its learning rate"
        yield StageProblem(plan.name, message, "epochs count from 0")
    if late := [each.frozen_epochs for each in plan.training[learner].parameter_groups if each.frozen_epochs >= epochs]:
        hint = "to freeze modules permanently, set 'freeze' of the participant"
        yield StageProblem(plan.name, f"{what}, and a parameter group is frozen for {late[0]}", hint)
    if rate.warmup >= epochs:
        message = f"{what}, and its learning rate warms up for {rate.warmup:g}"
        yield StageProblem(plan.name, message, "the warmup must end before training does")


def _withheld_labels(recipe: Recipe, stages: Sequence[Stage], terms: Mapping[str, list[LearnerTerm]]) -> Iterator[StageProblem]:
    """Check that no teacher reads labels that are withheld from students."""
    if recipe.data.labels != "withheld":
        return
    students = set(recipe.student_specs)
    readers = {name for name, own in terms.items() if any(term.active and term.needs.labels for term in own)} - students
    withheld = {stage.split for stage in stages if students & set(stage.learners)}
    read = {stage.split for stage in stages if readers & set(stage.learners)}
    hint = (
        "teachers need a split of their own: a protocol that sets one apart, and schedule.teacher_split; "
        "or give the labels, and students losses that read none"
    )
    for split in sorted(withheld & read):
        what = f"teachers learn from the labels of the {split!r} split, which are withheld from students"
        yield StageProblem("", what, hint)


def quoted(names: Sequence[str]) -> str:
    """Return the unique names in quotes, joined by "and"."""
    return " and ".join(map(repr, dict.fromkeys(names)))
