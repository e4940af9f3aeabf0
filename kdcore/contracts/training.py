"""Training options: epochs, optimizer, learning rate, and what ends, averages or groups."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

_STRICT = {"extra": "forbid"}

MOST_EPOCHS = 1_000_000
"""Epochs that a recipe may ask for; more are a slip of the pen."""


@dataclass(frozen=True)
class LearningRate:
    r"""A learning rate schedule: a factor of the optimizer's ``lr`` for each of a learner's epochs.

    The factor is set once per epoch :math:`e = 0, \ldots, E - 1`, as by the schedulers of `torch.optim.lr_scheduler`; of
    ``one-cycle`` it is set at every optimizer step, and of ``plateau`` it follows a metric. With
    :math:`w` epochs of warmup it is :math:`(e + 1) / (w + 1)` while :math:`e < w`, and then

    .. math::
        f(e) = 1, \quad
        f_\text{final} + (1 - f_\text{final}) \frac{1 + \cos(\pi u)}{2}, \quad
        \gamma^{\#\{m \le e\}}, \quad
        \gamma^e, \quad
        f_\text{final} + (1 - f_\text{final}) (1 - u)^p

    for ``constant``, ``cosine``, ``step``, ``exponential`` and ``polynomial``, with :math:`u = (e - w) / (E - w)` and power
    :math:`p`. So a cosine comes to `final` when the last epoch is over: in the last epoch, it is still
    :math:`(E - w - 1) / (E - w)` of its way from 1 to `final`.

    ``one-cycle`` is `torch.optim.lr_scheduler.OneCycleLR` with the optimizer's ``lr`` as its ``max_lr`` and momentum left as it
    is; ``plateau`` is `torch.optim.lr_scheduler.ReduceLROnPlateau`.

    Args:
        name: ``constant``, ``cosine``, ``step`` (× `gamma` from each of `milestones` on), ``exponential`` (× `gamma` every
            epoch), ``cosine-restarts`` (a cosine every `period` epochs), ``polynomial``, ``one-cycle`` (up to the optimizer's
            ``lr`` and down again) or ``plateau`` (× `gamma` when a metric no longer improves).
        milestones: Epochs, counted from 0, for ``step``; in ascending order.
        gamma: Factor, for ``step``, ``exponential`` and ``plateau``.
        final: Factor at the end of a cosine or polynomial.
        period: Epochs of one cosine, for ``cosine-restarts``.
        warmup: Epochs over which the factor grows linearly to one, before the rest; not for ``one-cycle`` and ``plateau``.
        power: Exponent, for ``polynomial``.
        monitor: Metric of ``plateau``: ``validation-loss`` (cross-entropy), ``validation-accuracy``, or ``training-loss``, the
            weighted sum of the learner's terms.
        patience: Epochs without an improvement that ``plateau`` tolerates.
        threshold: Least relative improvement that ``plateau`` counts.
        pct_start: Share of the steps in which ``one-cycle`` rises.
        div_factor: ``one-cycle`` starts at ``lr / div_factor``.
        final_div_factor: ``one-cycle`` ends at its start divided by this.

    Raises:
        ValueError: If ``step`` has no milestones, another has some, or they do not ascend from 1; or if an option is given that
            the rule does not have.
    """

    name: Literal["constant", "cosine", "step", "exponential", "cosine-restarts", "polynomial", "one-cycle", "plateau"] = (
        "constant"
    )
    milestones: tuple[int, ...] = ()
    gamma: Annotated[float, Gt(0)] = 0.1
    final: Annotated[float, Ge(0)] = 0.0
    period: Annotated[int, Ge(1)] = 20
    warmup: Annotated[float, Ge(0)] = 0.0
    power: Annotated[float, Gt(0)] = 1.0
    monitor: Literal["validation-loss", "validation-accuracy", "training-loss"] = "validation-loss"
    patience: Annotated[int, Ge(0)] = 10
    threshold: Annotated[float, Ge(0)] = 1e-4
    pct_start: Annotated[float, Gt(0), Lt(1)] = 0.3
    div_factor: Annotated[float, Ge(1)] = 25.0
    final_div_factor: Annotated[float, Ge(1)] = 1e4
    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        defaults = {each.name: each.default for each in fields(self)}
        for rule, options in _OPTIONS.items():
            for option in options:
                if self.name != rule and getattr(self, option) != defaults[option]:
                    raise ValueError(f"{option!r} does not go with {self.name!r}; it is for {rule!r}")
        if self.warmup and self.by_torch:
            raise ValueError(f"'warmup' does not go with {self.name!r}")
        if self.name == "step" and not self.milestones:
            raise ValueError("'step' requires 'milestones', the epochs at which the rate changes")
        if self.name != "step" and self.milestones:
            raise ValueError(f"'milestones' cannot be used with {self.name!r}, only with 'step'")
        if list(self.milestones) != sorted({each for each in self.milestones if each > 0}):
            raise ValueError(f"'milestones' must be increasing and at least 1, not {list(self.milestones)}")

    @property
    def by_torch(self) -> bool:
        """True if a scheduler of torch with a state of its own sets the rate, and `factor` does not."""
        return self.name in ("one-cycle", "plateau")

    @property
    def length_matters(self) -> bool:
        """True if the rate of an epoch depends on how many epochs there are."""
        return self.name in ("cosine", "polynomial", "one-cycle")

    def factor(self, epoch: float, epochs: int) -> float:
        """The factor at `epoch` (a fraction within an epoch is allowed) of `epochs`; 1 for ``one-cycle`` and ``plateau``."""
        if epoch < self.warmup:
            return (epoch + 1) / (self.warmup + 1)
        if self.name == "step":
            return self.gamma ** sum(epoch >= milestone for milestone in self.milestones)
        if self.name == "exponential":
            return self.gamma**epoch
        if self.name == "constant" or self.by_torch:
            return 1.0
        passed, length = epoch - self.warmup, max(1.0, epochs - self.warmup)
        if self.name == "cosine-restarts":
            passed, length = passed % self.period, float(self.period)
        if self.name == "polynomial":
            return self.final + (1 - self.final) * (1 - min(1.0, passed / length)) ** self.power
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * min(1.0, passed / length))) / 2


_OPTIONS = {
    "polynomial": ("power",),
    "plateau": ("monitor", "patience", "threshold"),
    "one-cycle": ("pct_start", "div_factor", "final_div_factor"),
}
"""Options that one rule alone has."""


@dataclass(frozen=True)
class EarlyStopping:
    """Early stopping: end a stage when a metric on the validation split no longer improves.

    The stage ends after an epoch if none of its learners has improved by more than `min_delta` over its best for `patience`
    epochs. ``select: best`` then restores the weights of the best epoch by the same metric.

    Args:
        patience: Epochs without an improvement.
        metric: ``accuracy``, or ``loss`` (mean cross-entropy in nats). For other targets ``map``, ``mae`` or ``r2``, by which
            they are judged, or ``loss``: of labels the mean binary cross-entropy, of values the mean squared error of
            normalised ones.
        min_delta: Least change that counts as an improvement, in the unit of the metric; accuracies and mAP are shares from 0
            to 1.
    """

    patience: Annotated[int, Ge(1)] = 10
    metric: Literal["accuracy", "loss", "map", "mae", "r2"] = "accuracy"
    min_delta: Annotated[float, Ge(0)] = 0.0
    __pydantic_config__ = _STRICT


@dataclass(frozen=True)
class MovingAverage:
    r"""An exponential moving average of parameters over optimizer steps :math:`n = 0, 1, \ldots`

    .. math::
        \bar\theta_n = d_n \bar\theta_{n-1} + (1 - d_n)\, \theta_n, \quad d_n = \min(\text{momentum}, n / (n + 1))

    or :math:`d_n` = momentum without warmup, with :math:`\bar\theta_{-1}` the initial parameters.

    Args:
        momentum: Share of the old average that an update keeps.
        warmup: Keep at most :math:`n / (n + 1)`, so that the average is a plain mean at first.
    """

    momentum: Annotated[float, Ge(0), Lt(1)] = 0.999
    warmup: bool = True
    __pydantic_config__ = _STRICT

    def decay(self, update: int) -> float:
        """Share of the old average that update `update` keeps, counted from 0."""
        return min(self.momentum, update / (update + 1)) if self.warmup else self.momentum


@dataclass(frozen=True)
class ParameterGroup:
    """Modules of an encoder with their own training options.

    Args:
        modules: Paths of modules in the encoder, each with all below, or patterns such as ``layer[12].*``.
        lr_factor: Factor on the optimizer's ``lr``.
        weight_decay: In place of the optimizer's; None for that.
        frozen_epochs: The learner's first epochs, in which these modules are frozen, running statistics included.

    Raises:
        ValueError: If it names no module or changes nothing.
    """

    modules: tuple[str, ...]
    lr_factor: Annotated[float, Gt(0)] = 1.0
    weight_decay: Annotated[float, Ge(0)] | None = None
    frozen_epochs: Annotated[int, Ge(0)] = 0
    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        if not self.modules:
            raise ValueError("'modules' is empty: name the modules of the encoder that the group is for")
        if self.lr_factor == 1 and self.weight_decay is None and not self.frozen_epochs:
            raise ValueError("a parameter group requires 'lr_factor', 'weight_decay' or 'frozen_epochs'")


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
        gradients: What the gradients of a learner's weighted terms become: their ``sum``; by ``pcgrad``, the sum without the
            part of each that works against another (Yu et al. 2020); by ``mgda``, the shortest convex combination (Désidéri
            2012). The latter two take a backward pass more for each term, and need a single process.
        largest_share: Largest share of a term in the combination by ``mgda`` (C of Du et al. 2020); 1 for no limit. All terms
            have the same share if it is 1 divided by their number, or less.
        select: ``last`` epoch's weights, or those of the epoch ``best`` on the validation split, by the metric of
            `early_stopping`; without, by accuracy, or by the metric by which the dataset's target is judged.
        batch_size: Samples per step, None for the recipe's.
        accumulate: Batches whose mean gradient makes one optimizer step; the last step of an epoch takes what is left.
        early_stopping: End a stage when its learners no longer improve; None to train for all epochs.
        ema: Moving average of a learner's parameters, which is what is evaluated and saved; None for the parameters themselves.
        parameter_groups: Modules with their own learning rate, weight decay or first epoch; the first match counts.
        decay_norms_and_biases: Whether weight decay applies to normalisation layers and to parameters with one axis, too.
    """

    epochs: Annotated[int, Ge(1), Le(MOST_EPOCHS)] = 30
    optimizer: Annotated[dict[str, Any], _Optimizer()] = field(default_factory=lambda: {"name": "adamw", "lr": 1e-3})
    learning_rate: LearningRate = LearningRate()
    gradient_clip: Annotated[float, Gt(0)] | None = None
    gradients: Literal["sum", "pcgrad", "mgda"] = "sum"
    largest_share: Annotated[float, Gt(0), Le(1)] = 1.0
    select: Literal["last", "best"] = "last"
    batch_size: Annotated[int, Ge(1)] | None = None
    accumulate: Annotated[int, Ge(1)] = 1
    early_stopping: EarlyStopping | None = None
    ema: MovingAverage | None = None
    parameter_groups: tuple[ParameterGroup, ...] = ()
    decay_norms_and_biases: bool = True
    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        if self.largest_share < 1 and self.gradients != "mgda":
            raise ValueError(f"'largest_share' does not go with gradients {self.gradients!r}; it is for 'mgda'")

    @property
    def reads_validation(self) -> str:
        """The key that requires a validation split; empty if none does."""
        if self.early_stopping:
            return "early_stopping"
        if self.select == "best":
            return "select"
        monitors = self.learning_rate.name == "plateau" and self.learning_rate.monitor != "training-loss"
        return "learning_rate" if monitors else ""

    @property
    def one_stage(self) -> str:
        """The key that requires a learner to be trained in a single stage; empty if none does."""
        if self.early_stopping:
            return "early_stopping"
        return f"learning_rate {self.learning_rate.name!r}" if self.learning_rate.by_torch else ""

    @property
    def selection(self) -> str:
        """The weights that are evaluated: ``last``, ``best`` or ``best by loss``, with ``, averaged`` where `ema` is set."""
        by_loss = self.early_stopping is not None and self.early_stopping.metric == "loss"
        epoch = "best by loss" if self.select == "best" and by_loss else self.select
        return epoch + (", averaged" if self.ema else "")
