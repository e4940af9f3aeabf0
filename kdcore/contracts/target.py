"""Targets: the kinds of labels that a dataset has and networks predict, and their metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

TargetKind = Literal["classes", "labels", "values"]
"""Single-label classification, multi-label classification, or regression."""

EVERY_TARGET: tuple[TargetKind, ...] = get_args(TargetKind)

IN_WORDS = {"classes": "one class per sample", "labels": "any number of labels per sample", "values": "values to estimate"}
"""Kind of target → description."""

THRESHOLD = 0.5
"""Default probability from which a label counts as predicted."""


@dataclass(frozen=True)
class Target:
    """The kind of a dataset's labels. The names of its classes, labels or values are the dataset's `classes`.

    Args:
        kind: ``classes``: one class per sample; networks return softmax logits. ``labels``: any number of labels per sample;
            networks return sigmoid logits. ``values``: a number per name; networks return normalised values.
        units: Unit of each value, empty if dimensionless; only for ``values``.
        mean: Mean of each value over the training split; empty until known.
        std: Standard deviation of each value over the training split.

    Raises:
        ValueError: If the kind is unknown, or units, mean or std are given for another kind than ``values``.
    """

    kind: TargetKind = "classes"
    units: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in EVERY_TARGET:
            raise ValueError(f"a target is one of {', '.join(EVERY_TARGET)}, not {self.kind!r}")
        if self.kind != "values" and (self.units or self.mean or self.std):
            raise ValueError(f"units, mean and std are for 'values', not for {self.kind!r}")

    @property
    def is_classes(self) -> bool:
        """True if each sample has one class."""
        return self.kind == "classes"

    @property
    def unit(self) -> str | None:
        """The common unit of all values; None if units differ."""
        return None if len(set(self.units)) > 1 else "".join(self.units[:1])

    @property
    def primary(self) -> str:
        """The primary metric: ``accuracy``, ``map``, ``mae``, or ``r2`` for values with different units."""
        return {"classes": "accuracy", "labels": "map"}.get(self.kind, "mae" if self.unit is not None else "r2")

    def metric(self, name: str) -> Metric:
        """The metric with the name `name`, such as ``mae`` or ``mae/heart rate``, in the unit of these targets."""
        base, _, of = name.partition("/")
        metric = METRICS[base]
        title = f"{metric.title} of {of}" if of else metric.title
        return Metric(name, title, (self.unit or "") if metric.in_units else metric.unit, metric.higher_is_better)

    def labels_of(self, answer: Sequence[float], names: Sequence[str]) -> list[str]:
        """Names of a sample's labels.

        Args:
            answer: Entry per name: 1 if the sample has the label, else 0 or NaN.
            names: Label names.
        """
        return [name for name, each in zip(names, answer, strict=True) if each == 1]

    def action_of(self, answer: int | Sequence[float] | None, names: Sequence[str]) -> str:
        """The `action` of a sample's key: its class or labels, ``none`` without labels, or ``recording`` for values.

        Args:
            answer: Class index, or the numbers of another target; None if unknown, which gives ``unlabelled``.
            names: Names of the classes, labels or values.
        """
        if answer is None:
            return "unlabelled"
        if isinstance(answer, int):
            return names[answer]
        return "recording" if self.kind == "values" else "+".join(self.labels_of(answer, names)) or "none"

    def normalised(self, values: Any) -> Any:
        """Normalise values (…, names), an array or a tensor, with the training split's mean and standard deviation."""
        return (values - _like(self.mean, values)) / _like(self.std, values)

    def in_units(self, outputs: Any) -> Any:
        """Convert normalised `outputs` (…, names) of a network, an array or a tensor, to values in their units."""
        return outputs * _like(self.std, outputs) + _like(self.mean, outputs)


OF_CLASSES = Target()
"""The default target: one class per sample."""


@dataclass(frozen=True)
class Metric:
    """An evaluation metric.

    Args:
        name: Name in records and trackers, such as ``macro_f1``.
        title: Name in reports, such as ``macro F1``.
        unit: Unit in reports; ``%`` for fractions, which are shown as percentages.
        higher_is_better: Whether larger numbers are better.
        in_units: Whether it has the unit of the predicted values.
    """

    name: str
    title: str
    unit: str = ""
    higher_is_better: bool = True
    in_units: bool = False

    @property
    def heading(self) -> str:
        """Title and unit: ``accuracy, %``."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    @property
    def capitalised(self) -> str:
        """The title at the beginning of a line: ``Macro F1``, but ``mAP``."""
        return self.title if self.title[1:2].isupper() else self.title[0].upper() + self.title[1:]

    def text(self, value: float) -> str:
        """Format a number without its unit, as a percentage if it is a fraction; a dash for NaN."""
        if math.isnan(value):
            return "–"
        return f"{100 * value:.1f}" if self.unit == "%" else f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"

    def signed(self, value: float) -> str:
        """Format a difference with its sign; a dash for NaN."""
        if math.isnan(value):
            return "–"
        return f"{100 * value:+.1f}" if self.unit == "%" else f"{value:+.3f}" if abs(value) < 100 else f"{value:+.4g}"

    def spread(self, values: Sequence[float]) -> str:
        """Format mean ± standard deviation of `values`; a single value without deviation."""
        if len(values) < 2:
            return "".join(map(self.text, values))
        import numpy as np

        if any(map(math.isnan, values)):
            return "–"
        return f"{self.text(float(np.mean(values)))} ± {self.text(float(np.std(values, ddof=1)))}"


METRICS = {
    each.name: each
    for each in (
        Metric("accuracy", "accuracy", "%"),
        Metric("macro_f1", "macro F1", "%"),
        Metric("micro_f1", "micro F1", "%"),
        Metric("subset_accuracy", "subset accuracy", "%"),
        Metric("map", "mAP", "%"),
        Metric("recall", "recall", "%"),
        Metric("average_precision", "average precision", "%"),
        Metric("loss", "loss", "nats", False),
        Metric("mae", "MAE", "", False, in_units=True),
        Metric("rmse", "RMSE", "", False, in_units=True),
        Metric("r2", "R²"),
    )
}
"""Name → metric."""


def with_units(names: Sequence[str], target: Target) -> list[str]:
    """Add the unit of each value in brackets to its name, if it has one."""
    units = target.units or ("",) * len(names)
    return [f"{name} [{unit}]" if unit else name for name, unit in zip(names, units, strict=True)]


def read_target(written: Any) -> Target:
    """Read a target from JSON, as `dataclasses.asdict` wrote it; None gives the default target.

    Raises:
        ValueError: If it is not a valid target.
    """
    if written is None:
        return Target()
    try:
        fields: dict[str, Any] = {key: tuple(each) if isinstance(each, list) else each for key, each in dict(written).items()}
        target = Target(**fields)
        numbers = [float(each) for each in (*target.mean, *target.std)]
    except TypeError as error:
        raise ValueError(str(error)) from error
    if not all(map(math.isfinite, numbers)) or any(each <= 0 for each in target.std) or len(target.mean) != len(target.std):
        raise ValueError("mean and std must be finite numbers, as many of each, and std greater than 0")
    return target


def known(labels: Any) -> Any:
    """Mask of the labelled samples: those with a known class, or with at least one known label or value.

    Args:
        labels: (N,) class indices, -1 if unknown; or (N, names) numbers, NaN if unknown; an array or a tensor.

    Returns:
        (N,) bool, an array or a tensor like `labels`.
    """
    return labels >= 0 if labels.ndim == 1 else (labels == labels).any(1)


def partly_known(labels: Any) -> bool:
    """True if a sample has both known and unknown entries; `labels` as in `known`."""
    return labels.ndim == 2 and bool((known(labels) & ~(labels == labels).all(1)).any())


def unknown(labels: Any) -> float:
    """The value that marks an unknown entry of `labels`: -1 for class indices, NaN for numbers."""
    return -1 if labels.ndim == 1 else float("nan")


def _like(numbers: Sequence[float], values: Any) -> Any:
    """Convert numbers to an array or a tensor like `values`."""
    if hasattr(values, "new_tensor"):
        return values.new_tensor(numbers)
    import numpy as np

    return np.asarray(numbers, dtype=np.float64)
