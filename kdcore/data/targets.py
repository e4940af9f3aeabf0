"""Targets and weights of samples: checks, and the statistics that values are normalised with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from kdcore.contracts.dataset import LARGEST, Dataset, Sample, wrong_weight
from kdcore.contracts.protocol import HELD_OUT
from kdcore.contracts.target import Target, known
from kdcore.errors import DataError


def check_targets(dataset: Dataset, samples: Sequence[Sample]) -> None:
    """Check that the labels, targets and weights of samples match the dataset's declared target.

    Raises:
        DataError: If one does not; names it.
    """
    target, count = dataset.target, len(dataset.classes)
    if target.units and len(target.units) != count:
        raise DataError(f"the dataset has {count} values, but {len(target.units)} units")
    if target.kind == "values":
        _refuse_unresolved([each.target for each in samples if each.target is not None], dataset.classes)
    for sample in samples:
        if wrong := _wrong_target(sample, target, count) or _wrong_weight(sample, dataset.weighted):
            raise DataError(f"{sample.key}: {wrong}")


def _wrong_target(sample: Sample, target: Target, count: int) -> str:
    if target.is_classes:
        return "it has a target, but the dataset's samples have classes" if sample.target is not None else ""
    if sample.label is not None:
        return f"it has a class, but the dataset's target is {target.kind!r}"
    if sample.target is None:
        return ""
    if len(sample.target) != count:
        return f"its target has {len(sample.target)} numbers, but the dataset has {count} {target.kind}"
    given = [each for each in sample.target if each == each]
    if not given:
        return f"none of its {target.kind} is known (NaN); give no target"
    if target.kind == "labels" and not set(given) <= {0, 1}:
        return f"a label is 0 or 1, not {next(each for each in given if each not in (0, 1)):g}"
    return "" if np.isfinite(given).all() else "its values are not finite numbers"


def _refuse_unresolved(numbers: Sequence[Sequence[float]], names: Sequence[str]) -> None:
    """Refuse values that float32 cannot hold, or whose differences it cannot tell apart."""
    if not numbers or len({len(each) for each in numbers}) > 1:
        return
    values = np.array(numbers, np.float64)
    for name, column in zip(names, values.T, strict=False):
        given = column[~np.isnan(column)]
        peak, spread = (float(np.abs(given).max()), float(np.ptp(given))) if len(given) else (0.0, 0.0)
        if LARGEST < peak < np.inf or 0 < peak < 1 / LARGEST:
            raise DataError(f"the value {name!r} has magnitudes of up to {peak:.3g}, beyond float32; give it in another unit")
        if 0 < spread < np.inf and np.spacing(np.float32(peak)) > 0.001 * spread:
            raise DataError(
                f"the value {name!r} varies by {spread:.3g} near {peak:.6g}, less than float32 can tell apart; "
                "subtract an offset from it"
            )


def _wrong_weight(sample: Sample, weighted: bool) -> str:
    if sample.weight != 1.0 and not weighted:
        return "it has a weight, but the dataset does not declare that samples may have one (weighted)"
    return wrong_weight(sample.weight)


def with_statistics(target: Target, training: Tensor, rows: Mapping[str, Tensor], names: Sequence[str]) -> Target:
    """The target with the mean and standard deviation of each value over the training samples; any other as it is.

    Args:
        target: The dataset's target.
        training: (N, names) training values, NaN if unknown or withheld.
        rows: Split → its rows. Statistics are computed on ``train``, or on all training splits if ``train`` has no values.
        names: Names of the values.

    Raises:
        DataError: If a value is the same for all training samples, or known of none.
    """
    if target.kind != "values":
        return target
    learnt = [each for split, each in rows.items() if split not in HELD_OUT]
    for chosen in (rows["train"], torch.cat(learnt)):
        values = training[chosen][known(training[chosen])].double()
        if len(values):
            break
    else:
        raise DataError("no training sample has values, so they cannot be normalised")
    if never := [name for name, each in zip(names, values.T, strict=True) if each.isnan().all()]:
        raise DataError(f"the value {never[0]!r} is known of no training sample, so there is nothing to learn")
    mean = values.nanmean(0)
    std = (values - mean).square().nanmean(0).sqrt()
    if constant := [name for name, each in zip(names, std.tolist(), strict=True) if each == 0]:
        raise DataError(f"the value {constant[0]!r} is the same for all training samples, so there is nothing to learn")
    return replace(target, mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def target_warnings(
    labels: Tensor, training: Tensor, rows: Mapping[str, Tensor], target: Target, names: Sequence[str]
) -> list[str]:
    """Sentences on labels that training or test samples never have, or always; and on test values beyond the training range."""
    train, test = training[rows["train"]], labels[rows["test"]]
    train, test = train[known(train)], test[known(test)]
    if target.is_classes or not len(train) or not len(test):
        return []
    if target.kind == "values":
        lacking = lacking_numbers(train.cpu(), names, "training", "values")
        lacking += lacking_numbers(test.cpu(), names, "test", "values")
        least, largest = train.nan_to_num(torch.inf).amin(0), train.nan_to_num(-torch.inf).amax(0)
        outside, stated = ((test < least) | (test > largest)).sum(0), test.isfinite().sum(0)
        counts = zip(names, outside.tolist(), stated.tolist(), strict=True)
        beyond = [f"{name!r} ({count} of {total} test samples)" for name, count, total in counts if count]
        return [*lacking, *([f"values beyond the range of the training samples: {', '.join(beyond)}"] if beyond else [])]
    warnings = []
    if len(names) > 1 and bool((train.sum(1) == 1).all()) and bool((test.sum(1) == 1).all()):
        warnings.append("every sample has exactly one label: if labels exclude each other, give classes instead")
    for what, values in (("training", train), ("test", test)):
        warnings += lacking_numbers(values.cpu(), names, what, "labels")
        stated = (values == values).any(0)  # a label that is never known is not reported
        for how, missing in (("no", stated & ~(values == 1).any(0)), ("every", stated & ~(values == 0).any(0))):
            if bool(missing.any()):
                listed = ", ".join(repr(name) for name, each in zip(names, missing.tolist(), strict=True) if each)
                warnings.append(f"labels that {how} {what} sample has: {listed}")
    return warnings


def lacking_numbers(numbers: ArrayLike, names: Sequence[str], what: str, kind: str) -> list[str]:
    """Return a message on samples with some unknown labels or values; none if there are no such samples.

    Args:
        numbers: (N, names), NaN where unknown. Each sample has at least one known number.
        names: Of the labels or values.
        what: Which samples they are, such as ``training``.
        kind: ``labels`` or ``values``.
    """
    lacking = np.isnan(np.asarray(numbers))
    if not lacking.any():
        return []
    counts = zip(names, lacking.sum(0).tolist(), strict=True)
    listed = ", ".join(f"{name!r} ({count})" for name, count in counts if count)
    return [f"{int(lacking.any(1).sum())} of {len(lacking)} {what} samples lack some {kind}, which do not count: {listed}"]
