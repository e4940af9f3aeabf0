"""Checks of schedules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice

from kdcore.contracts.schedule import Graph, Node, Schedule, Stage
from kdcore.errors import KdcoreError
from kdcore.testing.case import ConformanceError, require, skip_unless
from kdcore.testing.checks import Subject, check

GRAPHS = {
    "two teachers and a student": Graph.of(("first", "second"), ("student",)),
    "a teacher and three students": Graph.of(("first",), ("one", "two", "three")),
    "a student": Graph.of((), ("student",)),
    "two students": Graph.of((), ("one", "two")),
    "a teacher, its assistant and a student": Graph(
        {
            "first": Node("first", "teacher"),
            "assistant": Node("assistant", "teacher", ("first",)),
            "student": Node("student", "student", ("assistant",)),
        }
    ),
    "two students that learn from each other": Graph(
        {"one": Node("one", "student", ("two",)), "two": Node("two", "student", ("one",))}
    ),
}
"""Graphs with and without teachers, with one student and several, a chain and a circle."""
MANY = 10_000


def planned(subject: Subject) -> Iterator[tuple[str, Graph, list[Stage]]]:
    """Yield the graphs that the schedule accepts, as (description, graph, stages).

    Raises:
        NotApplicable: If it accepts none, which the check `stages_valid` reports.
    """
    schedule, accepted = subject.made(), 0
    for described, graph in _graphs(subject).items():
        try:
            stages = _stages(schedule, graph)
        except Exception:  # reported by `stages_valid`
            continue
        accepted += 1
        yield described, graph, stages
    skip_unless(accepted, "it returns no stages: see the check 'stages_valid'")


def _graphs(subject: Subject) -> Mapping[str, Graph]:
    if subject.case.inputs:
        return {f"graph {number}": graph for number, graph in enumerate(subject.case.inputs, 1)}
    return GRAPHS


def _stages(schedule: Schedule, graph: Graph) -> list[Stage]:
    stages = list(islice(schedule.stages(graph), MANY))
    require(len(stages) < MANY, f"it returns more than {MANY} stages; does it end?")
    return stages


@check("schedule")
def stages_valid(subject: Subject) -> None:
    """It returns stages, each with a name, learners of the graph, and a positive number of epochs."""
    schedule, accepted = subject.made(), 0
    for described, graph in _graphs(subject).items():
        try:
            stages = _stages(schedule, graph)
        except (ValueError, KdcoreError):  # a schedule may refuse a graph
            continue
        accepted += 1
        require(stages, f"it returns no stages for {described}")
        for stage in stages:
            require(isinstance(stage, Stage), f"it yields {stage!r}, which is not a Stage")
            _check_stage(stage, described, graph)
    if not accepted:
        raise ConformanceError(
            "it refuses every graph that it is tried with; list supported graphs in Case(inputs=[Graph.of(…)])"
        )


def _check_stage(stage: Stage, described: str, graph: Graph) -> None:
    require(stage.name, f"a stage for {described} has no name")
    require(stage.learners, f"no participant learns in stage {stage.name!r} for {described}")
    require(isinstance(stage.learners, tuple), f"learners of stage {stage.name!r} must be a tuple")
    unknown = [name for name in stage.learners if name not in graph.nodes]
    require(not unknown, f"stage {stage.name!r} names {', '.join(unknown)}, which is not in the graph ({described})")
    twice = [name for name, count in Counter(stage.learners).items() if count > 1]
    require(not twice, f"stage {stage.name!r} for {described} names {', '.join(twice)} twice")
    require(stage.epochs >= 1, f"stage {stage.name!r} for {described} has {stage.epochs} epochs")
    held_out = stage.split in ("validation", "test")
    require(not held_out, f"stage {stage.name!r} learns from the {stage.split} split, which is held out")


@check("schedule")
def everyone_learns(subject: Subject) -> None:
    """Every trained participant is a learner in some stage."""
    for described, graph, stages in planned(subject):
        learners = {name for stage in stages for name in stage.learners}
        untrained = [name for name in (*graph.teachers, *graph.students) if name not in learners]
        require(not untrained, f"for {described}, {', '.join(untrained)} never learns")


@check("schedule")
def order_follows_graph(subject: Subject) -> None:
    """No participant is trained before its sources."""
    for described, graph, stages in planned(subject):
        waiting = {name for stage in stages for name in stage.learners}  # `everyone_learns` reports the others
        for stage in stages:
            waiting -= set(stage.learners)
            for name in (each for each in stage.learners if each in graph.nodes):
                early = [source for source in graph.nodes[name].learns_from if source in waiting]
                require(not early, f"for {described}, {name} learns in stage {stage.name!r} before {', '.join(early)}")


@check("schedule")
def epochs_add_up(subject: Subject) -> None:
    """The epochs of all stages with the same learners add up to their training's `epochs`, which sets learning rates."""
    for described, _, stages in planned(subject):
        total = Counter[tuple[str, ...]]()
        for stage in stages:
            total[stage.learners] += stage.epochs
        for stage in stages:
            wanted = stage.training.epochs
            require(
                total[stage.learners] == wanted,
                f"for {described}, {'+'.join(stage.learners)} have {total[stage.learners]} epochs in total, "
                f"but their training sets {wanted}, which learning rates depend on",
            )


@check("schedule")
def repeatable(subject: Subject) -> None:
    """Called again, or constructed again, it returns the same stages: a resumed run calls it again."""
    schedule, other = subject.made(), subject.made()
    for described, graph, _ in planned(subject):
        first, again, fresh = _stages(schedule, graph), _stages(schedule, graph), _stages(other, graph)
        require(first == again, f"called twice for {described}, it returns different stages")
        require(first == fresh, f"constructed again, it returns different stages for {described}")
