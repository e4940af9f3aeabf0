"""Training schedules: the graph of participants, and the stages that train it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from kdcore.contracts.training import Training


@dataclass(frozen=True)
class Node:
    """A participant as a schedule sees it.

    Args:
        name: As the recipe names it.
        role: Section of the recipe that lists it: `teachers` or `students`.
        learns_from: Participants that it learns from.
        trains: False if there is nothing to train: stored outputs, a moving average, or a network that is frozen whole.
        training: Its own training; None for the schedule's.
        split: Split that it learns from; None for the schedule's choice.
        starts_from: Participant whose trained weights it starts from; None for weights of its own.
    """

    name: str
    role: Literal["teacher", "student"]
    learns_from: tuple[str, ...] = ()
    trains: bool = True
    training: Training | None = None
    split: str | None = None
    starts_from: str | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """Participants that it learns from or starts from."""
        return self.learns_from if self.starts_from is None else (*self.learns_from, self.starts_from)


@dataclass(frozen=True)
class Graph:
    """The graph of learners and their sources.

    Args:
        nodes: Every participant by name, teachers first.
        fused: Teachers that run through one fusion and are trained together.
        training: For participants that neither have a training of their own nor get one from the schedule.
    """

    nodes: Mapping[str, Node]
    fused: tuple[str, ...] = ()
    training: Training = field(default_factory=Training)

    @classmethod
    def of(cls, teachers: Iterable[str], students: Iterable[str]) -> Graph:
        """The default graph: every student learns from every teacher, and teachers learn from nobody."""
        teachers = tuple(teachers)
        nodes = {name: Node(name, "teacher") for name in teachers}
        return cls(nodes | {name: Node(name, "student", teachers) for name in students})

    @property
    def teachers(self) -> tuple[str, ...]:
        """Teachers that are trained."""
        return tuple(name for name, node in self.nodes.items() if node.role == "teacher" and node.trains)

    @property
    def students(self) -> tuple[str, ...]:
        """Students that are trained."""
        return tuple(name for name, node in self.nodes.items() if node.role == "student" and node.trains)

    def reaches(self, name: str) -> set[str]:
        """All direct and indirect sources of `name`, including itself if it is in a circle."""
        found: set[str] = set()
        waiting = list(self.nodes[name].sources)
        while waiting:
            source = waiting.pop()
            if source not in found:
                found.add(source)
                waiting += self.nodes[source].sources
        return found

    def circle(self, name: str) -> tuple[str, ...]:
        """`name` and all participants that are both its direct or indirect sources and its learners."""
        mine = self.reaches(name)
        return tuple(other for other in self.nodes if other == name or (other in mine and name in self.reaches(other)))

    def groups(self, names: Iterable[str] | None = None) -> tuple[tuple[str, ...], ...]:
        """Groups of participants that must be trained together, each group after all of its sources.

        A group is a circle, the teachers of one fusion, or a single participant.

        Args:
            names: Participants to order; all that are trained by default.

        Raises:
            ValueError: If teachers of one fusion learn from each other in turn.
        """
        wanted = [name for name in (self.nodes if names is None else names) if self.nodes[name].trains]
        group_of = {name: self.fused if name in self.fused else self.circle(name) for name in wanted}
        waiting = list(dict.fromkeys(group_of.values()))
        needs = {group: {source for name in group for source in self.reaches(name)} - set(group) for group in waiting}
        done: list[tuple[str, ...]] = []
        while waiting:
            ready = next(
                (group for group in waiting if not any(needs[group] & set(other) for other in waiting if other != group)), None
            )
            if ready is None:
                raise ValueError(
                    f"the participants {', '.join(name for group in waiting for name in group)} depend on each other"
                )
            done.append(tuple(name for name in ready if name in group_of))
            waiting.remove(ready)
        return tuple(done)

    def generations(self, names: Iterable[str] | None = None) -> tuple[tuple[str, ...], ...]:
        """Participants in as few steps as possible, each step after the sources of its members.

        Args:
            names: Participants to order; all that are trained by default.

        Raises:
            ValueError: If teachers of one fusion learn from each other in turn.
        """
        groups = self.groups(names)
        level: dict[str, int] = {}
        for group in groups:
            sources = {source for name in group for source in self.reaches(name)} - set(group)
            depth = max((level[source] + 1 for source in sources if source in level), default=0)
            level |= dict.fromkeys(group, depth)
        order = [name for name in self.nodes if name in level]
        return tuple(tuple(name for name in order if level[name] == depth) for depth in sorted(set(level.values())))


@dataclass(frozen=True)
class Stage:
    """A stage of training, in which each learner minimises its own objective.

    The sources of a learner are either trained in the same stage or frozen.

    Args:
        name: Name in progress and metrics.
        learners: Participants that are trained.
        training: Training settings; a participant's own `training` replaces them.
        epochs: Epochs of this stage.
        split: Split to train on.
    """

    name: str
    learners: tuple[str, ...]
    training: Training
    epochs: int
    split: str = "train"


class Schedule(ABC):
    """A sequence of stages."""

    @abstractmethod
    def stages(self, graph: Graph) -> Iterator[Stage]:
        """Return the stages in order. Repeated calls return the same stages.

        Args:
            graph: Graph of participants. Every participant in `graph.teachers` and `graph.students` must be trained, and not
                before its sources.
        """


class GraphSchedule(Schedule):
    """The default schedule: each group of the graph is trained to the end, after its sources."""

    def stages(self, graph: Graph) -> Iterator[Stage]:
        """A stage for each of `Graph.groups`, named after its participants."""
        for group in graph.groups():
            first = graph.nodes[group[0]]
            training = first.training or graph.training
            yield Stage("+".join(group), group, training, training.epochs, first.split or "train")
