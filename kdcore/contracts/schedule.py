"""Training schedules: the graph of who learns from whom, and the stages that train it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

_STRICT = {"extra": "forbid"}

MOST_EPOCHS = 1_000_000
"""Epochs that a recipe may ask for; more are a slip of the pen."""


@dataclass(frozen=True)
class LearningRate:
    r"""A learning rate schedule: a factor of the optimizer's ``lr`` for each of a learner's epochs.

    The factor is set once per epoch :math:`e = 0, \ldots, E - 1`, as by the schedulers of `torch.optim.lr_scheduler`. With
    :math:`w` epochs of warmup it is :math:`(e + 1) / (w + 1)` while :math:`e < w`, and then

    .. math::
        f(e) = 1, \quad
        f_\text{final} + (1 - f_\text{final}) \frac{1 + \cos(\pi u)}{2}, \quad
        \gamma^{\#\{m \le e\}}, \quad
        \gamma^e

    for ``constant``, ``cosine``, ``step`` and ``exponential``, with :math:`u = (e - w) / (E - w)`. So a cosine comes to `final`
    when the last epoch is over: in the last epoch, it is still :math:`(E - w - 1) / (E - w)` of its way from 1 to `final`.

    Args:
        name: ``constant``, ``cosine``, ``step`` (× `gamma` from each of `milestones` on), ``exponential`` (× `gamma` every
            epoch) or ``cosine-restarts`` (a cosine every `period` epochs).
        milestones: Epochs, counted from 0, for ``step``; in ascending order.
        gamma: Factor, for ``step`` and ``exponential``.
        final: Factor at the end of a cosine.
        period: Epochs of one cosine, for ``cosine-restarts``.
        warmup: Epochs over which the factor grows linearly to one, before the rest.

    Raises:
        ValueError: If ``step`` has no milestones, another has some, or they do not ascend from 1.
    """

    name: Literal["constant", "cosine", "step", "exponential", "cosine-restarts"] = "constant"
    milestones: tuple[int, ...] = ()
    gamma: Annotated[float, Gt(0)] = 0.1
    final: Annotated[float, Ge(0)] = 0.0
    period: Annotated[int, Ge(1)] = 20
    warmup: Annotated[float, Ge(0)] = 0.0
    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        if self.name == "step" and not self.milestones:
            raise ValueError("'step' requires 'milestones', the epochs at which the rate changes")
        if self.name != "step" and self.milestones:
            raise ValueError(f"'milestones' cannot be used with {self.name!r}, only with 'step'")
        if list(self.milestones) != sorted({each for each in self.milestones if each > 0}):
            raise ValueError(f"'milestones' must be increasing and at least 1, not {list(self.milestones)}")

    def factor(self, epoch: float, epochs: int) -> float:
        """The factor at `epoch` (a fraction within an epoch is allowed) of `epochs`."""
        import math

        if epoch < self.warmup:
            return (epoch + 1) / (self.warmup + 1)
        if self.name == "step":
            return self.gamma ** sum(epoch >= milestone for milestone in self.milestones)
        if self.name == "exponential":
            return self.gamma**epoch
        if self.name == "constant":
            return 1.0
        passed, length = epoch - self.warmup, max(1.0, epochs - self.warmup)
        if self.name == "cosine-restarts":
            passed, length = passed % self.period, float(self.period)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * min(1.0, passed / length))) / 2


class _Optimizer:
    """An optimizer as recipes write it: a name and options that `torch.optim` has."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(_offered_by_torch, handler(source))


def _offered_by_torch(options: dict[str, Any]) -> dict[str, Any]:
    from kdcore.contracts.optimizers import problem_with

    if wrong := problem_with(options):
        raise ValueError(wrong)
    return options


@dataclass(frozen=True)
class Training:
    """Training options of a group of learners.

    Args:
        epochs: Passes over the split, in all stages together.
        optimizer: Name of a `torch.optim` class (``adamw``, ``sgd`` …) and its options; lr 1e-3 unless given.
        learning_rate: Its change over epochs.
        gradient_clip: Largest gradient norm of a learner, None for no limit.
        select: ``last`` epoch's weights, or those of the epoch ``best`` on the validation split (accuracy).
        batch_size: Samples per step, None for the recipe's.
    """

    epochs: Annotated[int, Ge(1), Le(MOST_EPOCHS)] = 30
    optimizer: Annotated[dict[str, Any], _Optimizer()] = field(default_factory=lambda: {"name": "adamw", "lr": 1e-3})
    learning_rate: LearningRate = LearningRate()
    gradient_clip: Annotated[float, Gt(0)] | None = None
    select: Literal["last", "best"] = "last"
    batch_size: Annotated[int, Ge(1)] | None = None
    __pydantic_config__ = _STRICT


@dataclass(frozen=True)
class Node:
    """A participant as a schedule sees it.

    Args:
        name: As the recipe names it.
        role: Whether the recipe lists it under `teachers` or under `students`.
        learns_from: Participants that it learns from.
        trains: False if there is nothing to train: stored outputs, a moving average, or a network that is frozen whole.
        training: Its own training; None for the schedule's.
        split: Split that it learns from; None for the schedule's choice.
    """

    name: str
    role: Literal["teacher", "student"]
    learns_from: tuple[str, ...] = ()
    trains: bool = True
    training: Training | None = None
    split: str | None = None


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
    training: Training = Training()

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
        """All that `name` learns from, directly or through others; itself too if it is in a circle."""
        found: set[str] = set()
        waiting = list(self.nodes[name].learns_from)
        while waiting:
            source = waiting.pop()
            if source not in found:
                found.add(source)
                waiting += self.nodes[source].learns_from
        return found

    def circle(self, name: str) -> tuple[str, ...]:
        """`name` and those that learn from it and from whom it learns, directly or through others."""
        mine = self.reaches(name)
        return tuple(other for other in self.nodes if other == name or (other in mine and name in self.reaches(other)))

    def groups(self, names: Iterable[str] | None = None) -> tuple[tuple[str, ...], ...]:
        """Participants that must train side by side, each group after all that it learns from.

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
        """Participants in as few steps as possible: each step learns from earlier ones, or within itself in a circle.

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
    """One stretch of training.

    Each learner minimises its own terms. Those it learns from either learn beside it or answer without learning.

    Args:
        name: Shown in progress and metric names.
        learners: Participants that learn.
        training: How they learn; a participant with a training of its own keeps that.
        epochs: Epochs of this stage.
        split: Split that is learnt from.
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
        """The stages in order; the same ones each time it is called.

        Args:
            graph: Who learns from whom. Every participant in `graph.teachers` and `graph.students` must learn, and must not
                learn before those that it learns from.
        """


class GraphSchedule(Schedule):
    """The default schedule: each group of the graph is trained to the end after those that it learns from."""

    def stages(self, graph: Graph) -> Iterator[Stage]:
        """A stage for each of `Graph.groups`, named after its participants."""
        for group in graph.groups():
            first = graph.nodes[group[0]]
            training = first.training or graph.training
            yield Stage("+".join(group), group, training, training.epochs, first.split or "train")
