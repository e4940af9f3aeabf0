"""The graph of a recipe: participants, their sources, and the terms that read them."""

from __future__ import annotations

from collections import Counter
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
        term: The term as written.
        needs: Needs of its loss.
        teachers: Teachers that it reads.
        peers: Peers that it reads.
    """

    path: str
    term: Term
    needs: Needs
    teachers: tuple[str, ...]
    peers: tuple[str, ...]

    @property
    def loss(self) -> str:
        """Name of its loss."""
        return self.term.name

    @property
    def active(self) -> bool:
        """True if it is part of the objective at all."""
        return self.term.active

    @property
    def sources(self) -> tuple[str, ...]:
        """Teachers and peers that it reads."""
        return (*self.teachers, *self.peers)


def recipe_graph(recipe: Recipe, needs_of: NeedsOf) -> Graph:
    """Build the graph of learners and their sources; unknown names are left out.

    Args:
        recipe: The recipe.
        needs_of: Needs of the loss at a path. A student whose objective reads peers learns from all other students by default.
    """
    specs = recipe.participants
    fused = tuple(name for name in recipe.teachers if specs[name].is_network) if recipe.fusion else ()
    nodes = {}
    for name, spec in specs.items():
        sources = _sources(recipe, name, needs_of)
        nodes[name] = Node(
            name=name,
            role="teacher" if name in recipe.teachers else "student",
            learns_from=tuple(source for source in dict.fromkeys(sources) if source in specs and source != name),
            trains=spec.is_network and ("*" not in spec.freeze or name in fused),
            training=spec.training,
            split=spec.split,
            starts_from=spec.starts_from if spec.starts_from in specs and spec.starts_from != name else None,
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
    teachers = [teacher for teacher, other in recipe.teachers.items() if not other.is_copy]
    return (*teachers, *(recipe.student_specs if reads_peers else ()))


def teachers_of(graph: Graph, name: str) -> tuple[str, ...]:
    """Sources of `name` that are not its peers."""
    peers = peers_of(graph, name)
    return tuple(source for source in graph.nodes if source in graph.nodes[name].learns_from and source not in peers)


def peers_of(graph: Graph, name: str) -> tuple[str, ...]:
    """Sources of `name` that also learn from it, directly or indirectly."""
    circle = graph.circle(name)
    sources = graph.nodes[name].learns_from
    return tuple(other for other in circle if other != name and other in sources and graph.nodes[other].trains)


def terms_of(recipe: Recipe, graph: Graph, name: str, needs_of: NeedsOf) -> list[LearnerTerm]:
    """Terms of participant `name`; terms with an unknown loss are left out."""
    teachers, peers = teachers_of(graph, name), peers_of(graph, name)
    learner_terms = []
    for path, term in zip(recipe.term_paths(name), recipe.terms_of(name)[1], strict=True):
        needs = needs_of(path)
        if needs is not None:
            read_teachers = _selected(term, teachers) if needs.teachers else ()
            read_peers = _selected(term, peers) if needs.peers else ()
            learner_terms.append(LearnerTerm(path, term, needs, read_teachers, read_peers))
    return learner_terms


def _selected(term: Term, sources: Sequence[str]) -> tuple[str, ...]:
    """Those of `sources` that a term reads: all, or the ones that it names."""
    return tuple(source for source in sources if term.teachers is None or source in term.teachers)


@dataclass(frozen=True)
class StagePlan:
    """A planned stage: learners, sources and training settings.

    Args:
        name: Name in progress and metrics.
        learners: Participants that are trained.
        sources: Frozen participants that the learners read.
        training: Learner → its training settings; `epochs` counts all stages.
        epochs: Epochs of this stage.
        split: Split to train on.
        batch_size: Samples per step.
        order: Seed name of the order of samples; the same in both arms.
        accumulate: Batches per optimizer step.
        rows_of: Participants of which one must have a sample's signals; the learners by default. A stage of the baseline keeps
            those of the distilled arm, so that both arms have the same batches.
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
    rows_of: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.rows_of:
            object.__setattr__(self, "rows_of", self.learners)


def stage_plans(recipe: Recipe, graph: Graph, stages: Sequence[Stage], terms: dict[str, list[LearnerTerm]]) -> list[StagePlan]:
    """Plan the stages of a schedule; a stage is divided if its learners train for different numbers of epochs."""
    plans = []
    epochs = Counter[str]()
    for stage in stages:
        for learners, own in _same_length(graph, stage, stages):
            training = {name: graph.nodes[name].training or stage.training for name in learners}
            read = {source for name in learners for term in terms[name] if term.active for source in term.sources}
            first, joined_name = training[learners[0]], "+".join(learners)
            plan = StagePlan(
                name=stage.name if learners == stage.learners else joined_name,
                learners=learners,
                sources=tuple(name for name in graph.nodes if name in read and name not in learners),
                training=training,
                epochs=own.epochs if own else stage.epochs,
                split=stage.split,
                batch_size=first.batch_size or recipe.data.batch_size,
                order=joined_name,
                accumulate=first.accumulate,
            )
            plans.append(plan)
            epochs.update(dict.fromkeys(learners, plan.epochs))
    return [
        replace(plan, training={name: replace(each, epochs=epochs[name]) for name, each in plan.training.items()})
        for plan in plans
    ]


def _same_length(graph: Graph, stage: Stage, stages: Sequence[Stage]) -> list[tuple[tuple[str, ...], Training | None]]:
    """Groups of learners that can share a stage, each with the training that sets its length, or None for the schedule's.

    A learner's own training sets the length only if this is its only stage.
    """
    own: dict[str, Training | None] = {}
    groups: dict[Any, list[str]] = {}
    for name in stage.learners:
        is_only_stage = sum(name in other.learners for other in stages) == 1
        own[name] = graph.nodes[name].training if is_only_stage else None
        training, epochs = own[name] or stage.training, (own[name] or stage).epochs
        groups.setdefault((epochs, training.batch_size, training.accumulate, training.early_stopping), []).append(name)
    if not any(own.values()) and len(groups) == 1:
        return [(stage.learners, None)]
    return [(tuple(names), own[names[0]]) for names in groups.values()]
