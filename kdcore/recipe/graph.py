"""The graph of a recipe: participants, their sources, and their loss terms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kdcore.contracts.needs import Needs
from kdcore.contracts.schedule import Graph, Node, Stage
from kdcore.contracts.training import Training
from kdcore.recipe.config_models import Term
from kdcore.recipe.models import Recipe

NeedsOf = Callable[[str], Needs | None]
"""Path of a term in the recipe → what its loss needs; None if that is not known."""


@dataclass(frozen=True)
class LearnerTerm:
    """A term of one learner's objective.

    Args:
        path: Path in the recipe.
        term: The term in the recipe.
        needs: Needs of its loss.
        teachers: Teachers whose outputs it reads.
        peers: Peers whose outputs it reads.
    """

    path: str
    term: Term
    needs: Needs
    teachers: tuple[str, ...]
    peers: tuple[str, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        """All that it reads besides its learner."""
        return (*self.teachers, *self.peers)


def recipe_graph(recipe: Recipe, needs_of: NeedsOf) -> Graph:
    """The graph of learners and their sources; names that no participant has are left out.

    Args:
        recipe: The recipe.
        needs_of: Says whether a student's objective reads peers, in which case it learns from all other students by default.
    """
    specs = recipe.participants
    fused = tuple(name for name in recipe.teachers if specs[name].is_network) if recipe.fusion else ()
    nodes = {}
    for name, spec in specs.items():
        sources = _sources(recipe, name, needs_of)
        nodes[name] = Node(
            name,
            "teacher" if name in recipe.teachers else "student",
            tuple(source for source in dict.fromkeys(sources) if source in specs and source != name),
            spec.is_network and ("*" not in spec.freeze or name in fused),
            spec.training,
            spec.split,
        )
    return Graph(nodes, fused, recipe.training)


def _sources(recipe: Recipe, name: str, needs_of: NeedsOf) -> Iterable[str]:
    spec = recipe.participants[name]
    if spec.follows is not None:
        return (spec.follows,)
    if spec.outputs is not None:
        return ()
    if spec.learns_from is not None:
        return spec.learns_from
    if name in recipe.teachers:
        return ()
    reads_peers = any(needs.peers for path in recipe.term_paths(name) if (needs := needs_of(path)))
    return (*recipe.teachers, *(recipe.student_specs if reads_peers else ()))


def teachers_of(graph: Graph, name: str) -> tuple[str, ...]:
    """The sources of `name`, except peers."""
    peers = peers_of(graph, name)
    return tuple(source for source in graph.nodes if source in graph.nodes[name].learns_from and source not in peers)


def peers_of(graph: Graph, name: str) -> tuple[str, ...]:
    """The sources of `name` that also learn from it, directly or indirectly."""
    circle = graph.circle(name)
    sources = graph.nodes[name].learns_from
    return tuple(other for other in circle if other != name and other in sources and graph.nodes[other].trains)


def terms_of(recipe: Recipe, graph: Graph, name: str, needs_of: NeedsOf) -> list[LearnerTerm]:
    """The objective of participant `name`; terms whose loss is not known are left out."""
    teachers, peers = teachers_of(graph, name), peers_of(graph, name)
    found = []
    for path, term in zip(recipe.term_paths(name), recipe.terms_of(name)[1], strict=True):
        needs = needs_of(path)
        if needs is not None:
            chosen = _read(term, needs, teachers, peers)
            read = [tuple(each for each in group if each in chosen) for group in (teachers, peers)]
            found.append(LearnerTerm(path, term, needs, *read))
    return found


def _read(term: Term, needs: Needs, teachers: Sequence[str], peers: Sequence[str]) -> set[str]:
    """Those that a term is given: what its loss declares to need, of them the ones that the term names if it names any."""
    declared = {*(teachers if needs.teachers else ()), *(peers if needs.peers else ())}
    return declared if term.teachers is None else declared & set(term.teachers)


@dataclass(frozen=True)
class StagePlan:
    """A planned stage of training.

    Args:
        name: Name in progress and metrics.
        learners: Participants to train.
        sources: Frozen participants whose outputs the learners' losses read.
        training: Learner → its training options, with its epochs over all stages.
        epochs: Epochs of this stage.
        split: Training split.
        batch_size: Samples per step.
        order: Seed label of the sample order; the same in both arms, so that they see the same batches.
        accumulate: Batches per optimizer step.
    """

    name: str
    learners: tuple[str, ...]
    sources: tuple[str, ...]
    training: dict[str, Training]
    epochs: int
    split: str
    batch_size: int
    order: str
    accumulate: int = 1


def stage_plans(recipe: Recipe, graph: Graph, stages: Sequence[Stage], terms: dict[str, list[LearnerTerm]]) -> list[StagePlan]:
    """The stages of a schedule with the training of each learner, split where learners train for different lengths of time."""
    found = []
    for stage in stages:
        for learners, own in _same_length(graph, stage, stages):
            trained = {name: graph.nodes[name].training or stage.training for name in learners}
            read = {source for name in learners for term in terms[name] if term.term.active for source in term.sources}
            sources = tuple(name for name in graph.nodes if name in read and name not in learners)
            first = trained[learners[0]]
            size, order = first.batch_size or recipe.data.batch_size, "+".join(learners)
            epochs = own.epochs if own else stage.epochs
            label = stage.name if learners == stage.learners else order
            found.append(StagePlan(label, learners, sources, trained, epochs, stage.split, size, order, first.accumulate))
    totals: dict[str, int] = {}
    for plan in found:
        for name in plan.learners:
            totals[name] = totals.get(name, 0) + plan.epochs
    return [
        replace(plan, training={name: replace(each, epochs=totals[name]) for name, each in plan.training.items()})
        for plan in found
    ]


def _same_length(graph: Graph, stage: Stage, stages: Sequence[Stage]) -> list[tuple[tuple[str, ...], Training | None]]:
    """Learners of a stage that can share it, with the training that sets its length if that is not the schedule's."""
    alone = {name for name in stage.learners if sum(name in other.learners for other in stages) == 1}
    groups: dict[Any, list[str]] = {}
    for name in stage.learners:
        own = graph.nodes[name].training if name in alone else None
        how = own or stage.training
        length = (own.epochs if own else stage.epochs, how.batch_size, how.accumulate, how.early_stopping)
        groups.setdefault(length, []).append(name)
    if len(groups) == 1 and not any(graph.nodes[name].training for name in stage.learners if name in alone):
        return [(stage.learners, None)]
    return [(tuple(names), graph.nodes[names[0]].training if names[0] in alone else None) for names in groups.values()]
