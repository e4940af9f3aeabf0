"""Targets: the form of labels and of network outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

TargetKind = Literal["classes", "labels", "values"]
"""A class of several for each sample, any number of labels, or numbers to be estimated."""

EVERY_TARGET: tuple[TargetKind, ...] = get_args(TargetKind)

IN_WORDS = {"classes": "one class per sample", "labels": "any number of labels per sample", "values": "values to estimate"}
"""Kind of target → what it is."""

THRESHOLD = 0.5
"""Probability from which a label counts as predicted, unless another is asked for."""


@dataclass(frozen=True)
class Target:
    """The form of a dataset's targets; the names of its classes, labels or values are the dataset's `classes`.

    Args:
        kind: ``classes``: a sample has one class, and networks answer with logits of a softmax. ``labels``: a sample has any
            number of labels, and networks answer with logits of independent probabilities. ``values``: a sample has a number
            for each name, and networks answer with normalised numbers.
        units: Unit of each value, empty where it has none; for ``values`` alone.
        mean: Mean of each value over the training samples; empty before it is known.
        std: Standard deviation of each value over the training samples.

    Raises:
        ValueError: If there is no such kind, or units, mean or std are given for another kind than ``values``.
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
        """The unit that all values share; None if they have several."""
        return None if len(set(self.units)) > 1 else "".join(self.units[:1])

    @property
    def primary(self) -> str:
        """The metric by which results are judged: ``accuracy``, ``map``, ``mae``, or ``r2`` for values of several units."""
        return {"classes": "accuracy", "labels": "map"}.get(self.kind, "mae" if self.unit is not None else "r2")

    def metric(self, name: str) -> Metric:
        """The metric called `name`, in the unit of these targets."""
        base, _, of = name.partition("/")
        found = METRICS[base]
        if not found.in_units:
            return Metric(name, f"{found.title} of {of}" if of else found.title, found.unit, found.higher_is_better)
        return Metric(name, f"{found.title} of {of}" if of else found.title, self.unit or "", found.higher_is_better)

    def labels_of(self, answer: Sequence[float], names: Sequence[str]) -> list[str]:
        """The labels that a sample has.

        Args:
            answer: 1 for each label that it has, 0 or NaN for any other.
            names: Of the labels.
        """
        return [name for name, each in zip(names, answer, strict=True) if each == 1]

    def action_of(self, answer: int | Sequence[float] | None, names: Sequence[str]) -> str:
        """The action in a sample's key: its class or labels, ``none`` without a label, ``recording`` where it has values.

        Args:
            answer: The position of its class, or its numbers; None (``unlabelled``) where nothing is known.
            names: Of the classes, labels or values.
        """
        if answer is None:
            return "unlabelled"
        if isinstance(answer, int):
            return names[answer]
        return "recording" if self.kind == "values" else "+".join(self.labels_of(answer, names)) or "none"

    def normalised(self, values: Any) -> Any:
        """Values (…, names), an array or a tensor, with mean 0 and standard deviation 1 over the training samples."""
        return (values - _like(self.mean, values)) / _like(self.std, values)

    def in_units(self, outputs: Any) -> Any:
        """The values (…, names) that a network's normalised `outputs` stand for, an array or a tensor."""
        return outputs * _like(self.std, outputs) + _like(self.mean, outputs)


OF_CLASSES = Target()
"""The target of datasets whose samples have one class each."""


@dataclass(frozen=True)
class Metric:
    """A metric of results.

    Args:
        name: As in records and trackers, such as ``macro_f1``.
        title: As people read it, such as ``macro F1``.
        unit: ``%`` for a fraction, which is shown in percent; otherwise shown as it is.
        higher_is_better: Whether larger numbers are better.
        in_units: Whether it has the unit of the values that are estimated.
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
        """A number of this metric, in percent if it is a fraction, without its unit; a dash if it is undefined."""
        if math.isnan(value):
            return "–"
        return f"{100 * value:.1f}" if self.unit == "%" else f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"

    def signed(self, value: float) -> str:
        """A difference with its sign; a dash if it is undefined."""
        if math.isnan(value):
            return "–"
        return f"{100 * value:+.1f}" if self.unit == "%" else f"{value:+.3f}" if abs(value) < 100 else f"{value:+.4g}"

    def spread(self, values: Sequence[float]) -> str:
        """Mean ± standard deviation of `values`; the only one of them without."""
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
    """Names, each with the unit of its value in brackets if it has one."""
    units = target.units or ("",) * len(names)
    return [f"{name} [{unit}]" if unit else name for name, unit in zip(names, units, strict=True)]


def read_target(written: Any) -> Target:
    """A target that `dataclasses.asdict` made plain and JSON kept; of classes if nothing is written.

    Raises:
        ValueError: If it is none.
    """
    if written is None:
        return Target()
    try:
        held: dict[str, Any] = {key: tuple(each) if isinstance(each, list) else each for key, each in dict(written).items()}
        found = Target(**held)
        numbers = [float(each) for each in (*found.mean, *found.std)]
    except TypeError as error:
        raise ValueError(str(error)) from error
    if not all(map(math.isfinite, numbers)) or any(each <= 0 for each in found.std) or len(found.mean) != len(found.std):
        raise ValueError("mean and std must be finite numbers, as many of each, and std greater than 0")
    return found


def known(labels: Any) -> Any:
    """Mask of the samples whose target is known, or, of several labels or values, at least one of them.

    Args:
        labels: (N,) class indices, -1 where unknown, or (N, names) numbers, NaN where unknown; an array or a tensor.

    Returns:
        (N,) bool, of the same library.
    """
    return labels >= 0 if labels.ndim == 1 else (labels == labels).any(1)


def partly_known(labels: Any) -> bool:
    """True if some numbers of a sample's target are known and others are not; `labels` as of `known`."""
    return labels.ndim == 2 and bool((known(labels) & ~(labels == labels).all(1)).any())


def unknown(labels: Any) -> float:
    """The placeholder of an unknown target in `labels`: -1 for a class index, NaN for numbers."""
    return -1 if labels.ndim == 1 else float("nan")


def _like(numbers: Sequence[float], values: Any) -> Any:
    """Numbers as an array or tensor that goes with `values`."""
    if hasattr(values, "new_tensor"):
        return values.new_tensor(numbers)
    import numpy as np

    return np.asarray(numbers, dtype=np.float64)
