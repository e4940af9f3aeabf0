"""Training options: epochs, optimizer, learning rate, early stopping, weight averaging and parameter groups."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

_STRICT = {"extra": "forbid"}

MOST_EPOCHS = 1_000_000
"""Largest number of epochs in a recipe; more is taken for a typing error."""


@dataclass(frozen=True)
class LearningRate:
    r"""A learning rate schedule: a factor on the optimizer's ``lr`` for each of a learner's epochs.

    The factor is set once per epoch :math:`e = 0, \ldots, E - 1`, as in `torch.optim.lr_scheduler`; for ``one-cycle`` it is
    set at every optimizer step, and for ``plateau`` it follows a metric. With
    :math:`w` epochs of warmup it is :math:`(e + 1) / (w + 1)` while :math:`e < w`, and then

    .. math::
        f(e) = 1, \quad
        f_\text{final} + (1 - f_\text{final}) \frac{1 + \cos(\pi u)}{2}, \quad
        \gamma^{\#\{m \le e\}}, \quad
        \gamma^e, \quad
        f_\text{final} + (1 - f_\text{final}) (1 - u)^p

    for ``constant``, ``cosine``, ``step``, ``exponential`` and ``polynomial``, with :math:`u = (e - w) / (E - w)` and power
    :math:`p`. A cosine reaches `final` only after the last epoch: in the last epoch, :math:`u = (E - w - 1) / (E - w)`.

    ``one-cycle`` is `torch.optim.lr_scheduler.OneCycleLR` with the optimizer's ``lr`` as ``max_lr`` and constant momentum;
    ``plateau`` is `torch.optim.lr_scheduler.ReduceLROnPlateau`.

    Args:
        name: ``constant``, ``cosine``, ``step`` (× `gamma` from each of `milestones` on), ``exponential`` (× `gamma` every
            epoch), ``cosine-restarts`` (a cosine every `period` epochs), ``polynomial``, ``one-cycle`` (up to the optimizer's
            ``lr`` and down again) or ``plateau`` (× `gamma` when a metric no longer improves).
        milestones: Epochs at which ``step`` changes the rate, counted from 0, in ascending order.
        gamma: Factor, for ``step``, ``exponential`` and ``plateau``.
        final: Factor at the end of a cosine or polynomial.
        period: Epochs of one cosine, for ``cosine-restarts``.
        warmup: Epochs of linear warmup before the schedule; not for ``one-cycle`` and ``plateau``.
        power: Exponent, for ``polynomial``.
        monitor: Metric of ``plateau``: ``validation-loss`` (cross-entropy), ``validation-accuracy``, or ``training-loss``, the
            weighted sum of the learner's terms.
        patience: Epochs without improvement before ``plateau`` reduces the rate.
        threshold: Smallest relative improvement that ``plateau`` counts.
        pct_start: Fraction of the steps in which ``one-cycle`` increases the rate.
        div_factor: ``one-cycle`` starts at ``lr / div_factor``.
        final_div_factor: ``one-cycle`` ends at its start divided by this.

    Raises:
        ValueError: If ``step`` has no milestones, another schedule has some, or they are not increasing from 1; or if an option
            does not belong to the schedule.
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
        """True if a PyTorch scheduler with its own state sets the rate instead of `factor`."""
        return self.name in ("one-cycle", "plateau")

    @property
    def length_matters(self) -> bool:
        """True if the rate of an epoch depends on the total number of epochs."""
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
"""Schedule → options that only it has."""


@dataclass(frozen=True)
class EarlyStopping:
    """Ends a stage before its last epoch when a metric on the validation split stops improving.

    The stage ends when none of its learners has improved on its best by more than `min_delta` for `patience` epochs.
    ``select: best`` then restores the weights of the best epoch by the same metric.

    Args:
        patience: Epochs without improvement.
        metric: ``accuracy``, or ``loss`` (mean cross-entropy in nats). For other targets, their primary metric ``map``, ``mae``
            or ``r2``, or ``loss``: mean binary cross-entropy for labels, MSE of normalised values for values.
        min_delta: Smallest change that counts as an improvement, in the unit of the metric; accuracy and mAP are in [0, 1].
    """

    patience: Annotated[int, Ge(1)] = 10
    metric: Literal["accuracy", "loss", "map", "mae", "r2"] = "accuracy"
    min_delta: Annotated[float, Ge(0)] = 0.0
    __pydantic_config__ = _STRICT


@dataclass(frozen=True)
class MovingAverage:
    r"""Exponential moving average (EMA) of parameters over optimizer steps :math:`n = 0, 1, \ldots`

    .. math::
        \bar\theta_n = d_n \bar\theta_{n-1} + (1 - d_n)\, \theta_n, \quad d_n = \min(\text{momentum}, n / (n + 1))

    or :math:`d_n` = momentum without warmup, with :math:`\bar\theta_{-1}` the initial parameters.

    Args:
        momentum: Decay: weight of the old average in an update.
        warmup: Limit the decay to :math:`n / (n + 1)`, so that the average is a plain mean at first.
    """

    momentum: Annotated[float, Ge(0), Lt(1)] = 0.999
    warmup: bool = True
    __pydantic_config__ = _STRICT

    def decay(self, update: int) -> float:
        """Decay of update `update`, counted from 0."""
        return min(self.momentum, update / (update + 1)) if self.warmup else self.momentum


@dataclass(frozen=True)
class ParameterGroup:
    """Modules of an encoder, or losses, with their own learning rate, weight decay or frozen epochs.

    A group that only names modules keeps them out of the groups after it.

    Args:
        modules: Paths of modules in the encoder, including submodules, or glob patterns such as ``layer[12].*``. The
            parameters of a loss are ``losses.<term>``, those of all losses ``losses.*``; a baseline without that term ignores
            the pattern.
        lr_factor: Factor on the optimizer's ``lr``.
        weight_decay: Replaces the optimizer's weight decay; None to keep it.
        frozen_epochs: Number of first epochs in which the modules are frozen, including running statistics.

    Raises:
        ValueError: If `modules` is empty.
    """

    modules: tuple[str, ...]
    lr_factor: Annotated[float, Gt(0)] = 1.0
    weight_decay: Annotated[float, Ge(0)] | None = None
    frozen_epochs: Annotated[int, Ge(0)] = 0
    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        if not self.modules:
            raise ValueError("'modules' is empty: name the modules of the encoder that the group is for")


class _Optimizer:
    """Pydantic annotation that validates an optimizer's name and options against `torch.optim`."""

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
        epochs: Passes over the training split, summed over all stages.
        optimizer: ``name`` of a `torch.optim` class (``adamw``, ``sgd`` …) and its options; ``lr`` is 1e-3 by default.
        learning_rate: Learning rate schedule.
        gradient_clip: Maximum gradient norm of a learner; None to disable clipping.
        gradients: Rule that combines the gradients of a learner's weighted terms: their ``sum``; ``pcgrad``, the sum of
            gradients projected to remove conflicts (Yu et al. 2020); or ``mgda``, the shortest convex combination (Désidéri
            2012). The last two take one more backward pass per term, and require a single process.
        largest_share: Largest share of a term in ``mgda`` (C of Du et al. 2020); 1 for no limit. At 1 divided by the number of
            terms, or less, all terms have the same share.
        select: Weights to keep: of the ``last`` epoch, or of the ``best`` on the validation split by the metric of
            `early_stopping`; without early stopping, by the target's primary metric (accuracy for classes).
        batch_size: Samples per step; None for the recipe's ``data.batch_size``.
        accumulate: Batches per optimizer step (gradient accumulation); the last step of an epoch may have fewer.
        early_stopping: Ends a stage when its learners stop improving; None to train for all epochs.
        ema: Moving average of the parameters, evaluated and saved in their place; None to disable it.
        parameter_groups: Modules with their own learning rate, weight decay or frozen epochs; the first match applies.
        decay_norms_and_biases: Whether weight decay also applies to normalisation layers and one-dimensional parameters.
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
        """The evaluated weights: ``last``, ``best`` or ``best by loss``, plus ``, averaged`` if `ema` is set."""
        by_loss = self.early_stopping is not None and self.early_stopping.metric == "loss"
        epoch = "best by loss" if self.select == "best" and by_loss else self.select
        return epoch + (", averaged" if self.ema else "")
