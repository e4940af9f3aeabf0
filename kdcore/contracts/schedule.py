"""Training schedules: who learns what, when."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt

_STRICT = {"extra": "forbid"}


@dataclass(frozen=True)
class LearningRate:
    """How the learning rate changes over a learner's epochs, as a factor of the optimizer's ``lr``.

    Args:
        name: ``constant``, ``cosine`` (to `final` at the last epoch), ``step`` (× `gamma` at each of `milestones`),
            ``exponential`` (× `gamma` every epoch) or ``cosine-restarts`` (a cosine every `period` epochs).
        milestones: Epochs, for ``step``.
        gamma: Factor, for ``step`` and ``exponential``.
        final: Factor at the end of a cosine.
        period: Epochs of one cosine, for ``cosine-restarts``.
        warmup: Epochs over which the factor grows linearly to one, before the rest.
    """

    name: Literal["constant", "cosine", "step", "exponential", "cosine-restarts"] = "constant"
    milestones: tuple[int, ...] = ()
    gamma: Annotated[float, Gt(0)] = 0.1
    final: Annotated[float, Ge(0)] = 0.0
    period: Annotated[int, Ge(1)] = 20
    warmup: Annotated[float, Ge(0)] = 0.0
    __pydantic_config__ = _STRICT

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
    """What a recipe may write for an optimizer: a name and options that `torch.optim` has."""

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
    """How a group of learners is trained.

    Args:
        epochs: Passes over the part, in all stages together.
        optimizer: Name of a `torch.optim` class (``adamw``, ``sgd`` …) and its options; lr 1e-3 unless given.
        learning_rate: Its change over epochs.
        gradient_clip: Largest gradient norm of a learner, None for no limit.
        select: ``last`` epoch's weights, or those of the epoch ``best`` on the validation part (accuracy).
        batch_size: Samples per step, None for the recipe's.
    """

    epochs: Annotated[int, Ge(1)] = 30
    optimizer: Annotated[dict[str, Any], _Optimizer()] = field(default_factory=lambda: {"name": "adamw", "lr": 1e-3})
    learning_rate: LearningRate = LearningRate()
    gradient_clip: Annotated[float, Gt(0)] | None = None
    select: Literal["last", "best"] = "last"
    batch_size: Annotated[int, Ge(1)] | None = None
    __pydantic_config__ = _STRICT


@dataclass(frozen=True)
class Team:
    """Names of a recipe's participants."""

    teachers: tuple[str, ...]
    students: tuple[str, ...]


@dataclass(frozen=True)
class Stage:
    """One stretch of training.

    A learner that is a teacher minimises the recipe's ``teacher_losses``, one that is a student its ``losses``.

    Args:
        name: Shown in progress and metric names.
        learners: Who learns. The same tuple of learners keeps its optimizer from stage to stage.
        training: How they learn.
        epochs: Epochs of this stage.
        teachers: Teachers that answer without learning.
        part: Which part of the split is learnt from.
    """

    name: str
    learners: tuple[str, ...]
    training: Training
    epochs: int
    teachers: tuple[str, ...] = ()
    part: str = "train"


class Schedule(ABC):
    """A sequence of stages."""

    @abstractmethod
    def stages(self, team: Team) -> Iterator[Stage]:
        """The stages in order; the same ones each time it is called, for a resumed run asks again."""
