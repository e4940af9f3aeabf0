"""Training schedules: the graph of participants, and the stages that train it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from kdcore.contracts.training import Training


@dataclass(frozen=True)
class Node:
    """A participant in the graph.

    Args:
        name: Name in the recipe.
        role: Whether the recipe lists it under `teachers` or `students`.
        learns_from: Names of its sources.
        trains: False for stored outputs, moving averages and fully frozen networks.
        training: Its own training options; None for the schedule's.
        split: Its training split; None for the schedule's choice.
        starts_from: Participant whose trained weights it starts from; None for its own initial weights.
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
        nodes: Name → participant, teachers first.
        fused: Teachers that run through one fusion and are trained together.
        training: Default training options, for participants without their own or the schedule's.
    """

    nodes: Mapping[str, Node]
    fused: tuple[str, ...] = ()
    training: Training = field(default_factory=Training)

    @classmethod
    def of(cls, teachers: Iterable[str], students: Iterable[str]) -> Graph:
        """The default graph: every student learns from every teacher, and teachers have no sources."""
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
        """Direct and indirect sources of `name`, including itself if it is part of a cycle."""
        reached: set[str] = set()
        waiting = list(self.nodes[name].sources)
        while waiting:
            source = waiting.pop()
            if source not in reached:
                reached.add(source)
                waiting += self.nodes[source].sources
        return reached

    def circle(self, name: str) -> tuple[str, ...]:
        """The strongly connected component of `name`: participants that learn from each other, directly or indirectly."""
        sources = self.reaches(name)
        return tuple(other for other in self.nodes if other == name or (other in sources and name in self.reaches(other)))

    def groups(self, names: Iterable[str] | None = None) -> tuple[tuple[str, ...], ...]:
        """Groups of participants that must train together, in an order that puts sources first.

        A group is a cycle, the teachers of one fusion, or a single participant.

        Args:
            names: Participants to order; all that are trained by default.

        Raises:
            ValueError: If teachers of one fusion learn from each other in turn.
        """
        trained = [name for name in (self.nodes if names is None else names) if self.nodes[name].trains]
        group_of = {name: self.fused if name in self.fused else self.circle(name) for name in trained}
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
        """Participants in as few steps as possible: sources are in earlier steps, or in the same step if part of a cycle.

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
    """A stage of training.

    Each learner minimises its own objective. Its sources are learners of the same stage, or frozen.

    Args:
        name: Name in progress and metrics.
        learners: Participants to train.
        training: Training options; a participant's own take precedence.
        epochs: Epochs of this stage.
        split: Training split.
    """

    name: str
    learners: tuple[str, ...]
    training: Training
    epochs: int
    split: str = "train"


class Schedule(ABC):
    """Base class of schedules: orders training into stages."""

    @abstractmethod
    def stages(self, graph: Graph) -> Iterator[Stage]:
        """Yield the stages in order; every call must yield the same stages.

        Args:
            graph: Participants and their sources. Every participant in `graph.teachers` and `graph.students` must be trained,
                and not before its sources.
        """
