"""The gain of distillation: the student's result minus the baseline's, with a confidence interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdcore.contracts.target import METRICS, Metric
from kdcore.runs.metrics import CONFIDENCE, Evaluation
from kdcore.runs.target_metrics import AnyEvaluation, resamples

RESAMPLES = 10_000

NO_SPREAD = 1e-12
"""Width below which an interval is a point: without spread, equal differences would seem certain."""

FEWEST_SUBJECTS = 5
"""Fewest test subjects for an interval over subjects."""


@dataclass(frozen=True)
class Difference:
    """A gain: the student's result with distillation minus the baseline's, in the target's primary metric.

    Args:
        mean: Mean difference over seeds, as a fraction (0.01 is one percentage point) or in the unit of the values.
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
        n_seeds: Number of seeds.
        method: Method of the interval.
        conclusive: True if there are several seeds and the interval excludes zero.
        sentence: The result as a sentence.
        per_seed: Difference of each seed, in the run's order.
        metric: The metric. If lower is better, as for MAE, an improvement is negative.
    """

    mean: float
    low: float
    high: float
    n_seeds: int
    method: str
    conclusive: bool
    sentence: str
    per_seed: tuple[float, ...] = ()
    metric: Metric = METRICS["accuracy"]

    @property
    def helped(self) -> bool:
        """True if the mean is an improvement."""
        return self.mean > 0 if self.metric.higher_is_better else self.mean < 0

    @property
    def amount(self) -> str:
        """The mean and the interval, if there is one, in points of a hundred or in units."""
        if self.high - self.low < NO_SPREAD:
            return self.metric.signed(self.mean)
        return f"{self.metric.signed(self.mean)} ({self.metric.signed(self.low)} to {self.metric.signed(self.high)})"


def paired_difference(with_kd: Sequence[AnyEvaluation], without: Sequence[AnyEvaluation]) -> Difference:
    """Compute the gain over seeds. Differences are paired: both students of a seed have equal initial weights and test samples.

    With several seeds, the interval is Student's t over the seeds' differences:

    .. math:: \\bar d \\pm t_{0.975, S-1}\\, s_d / \\sqrt S

    If the metric is undefined on the test samples, such as mAP without any label, the difference is NaN.

    With one seed, it is a percentile bootstrap over the test samples, with fixed resamples. It says nothing about other seeds,
    and so is never conclusive. Windows are resampled by recording, because the windows of one recording are not independent.

    Args:
        with_kd: Evaluations of the distilled student, one per seed.
        without: Evaluations of the baseline, for the same seeds in the same order.

    Raises:
        ValueError: If seeds or samples differ between the two.
    """
    if not with_kd or len(with_kd) != len(without):
        raise ValueError(
            f"one evaluation with and one without distillation per seed is needed, not {len(with_kd)} and {len(without)}"
        )
    if any(not np.array_equal(one.labels, other.labels, equal_nan=True) for one, other in zip(with_kd, without, strict=True)):
        raise ValueError("evaluations of a seed must be of the same test samples in the same order")
    metric, pairs = with_kd[0].primary, zip(with_kd, without, strict=True)
    differences = np.array([one.metrics()[metric.name] - other.metrics()[metric.name] for one, other in pairs])
    if np.isnan(differences).any():
        return _undefined(differences, metric)
    return _one_seed(with_kd[0], without[0]) if len(differences) == 1 else _several_seeds(differences, metric)


def difference_by_subject(
    with_kd: Sequence[Evaluation], without: Sequence[Evaluation], subjects: ArrayLike
) -> Difference | None:
    """Compute the gain over test subjects: each subject counts once, with its mean difference over seeds.

    The interval is Student's t over the subjects' differences. It covers the variation between subjects, which an interval over
    seeds does not. Neither covers the variation of the training data.

    Args:
        with_kd: Evaluations of the distilled student, one per seed.
        without: Evaluations of the baseline, for the same seeds in the same order.
        subjects: (N,) subject of each sample.

    Returns:
        None for fewer than `FEWEST_SUBJECTS` subjects.
    """
    names, groups = np.unique(np.asarray(subjects), return_inverse=True)
    if len(names) < FEWEST_SUBJECTS:
        return None
    gained = sum(one.correct.astype(float) - other.correct for one, other in zip(with_kd, without, strict=True))
    metric = METRICS["accuracy"]
    difference = _several_seeds(np.bincount(groups, gained) / np.bincount(groups) / len(with_kd), metric)
    seeds = f", each averaged over {len(with_kd)} seeds" if len(with_kd) > 1 else ""
    method = f"paired t over {len(names)} test subjects{seeds}"
    sentence = f"By test subject: {_amount(difference.mean, difference.low, difference.high, method, metric)}."
    return replace(difference, n_seeds=len(with_kd), method=method, sentence=sentence, per_seed=())


def _undefined(differences: NDArray[np.float64], metric: Metric) -> Difference:
    nan, sentence = float("nan"), f"{metric.capitalised} is undefined on these test samples, so there is nothing to compare."
    return Difference(nan, nan, nan, len(differences), "none", False, sentence, tuple(differences.tolist()), metric)


def _several_seeds(differences: NDArray[np.float64], metric: Metric) -> Difference:
    from scipy import special

    count, mean, spread = len(differences), float(differences.mean()), float(differences.std(ddof=1))
    half = float(special.stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * spread / count**0.5
    low, high, method = mean - half, mean + half, f"paired t over {count} seeds"
    if spread < NO_SPREAD and mean:
        conclusive, verdict = False, "No conclusion"
    else:
        conclusive = low > 0 or high < 0
        helped = "Distillation helped" if (low > 0) == metric.higher_is_better else "Distillation hurt"
        verdict = helped if conclusive else "No clear effect of distillation"
    sentence = f"{verdict}: {_amount(mean, low, high, method, metric)}."
    return Difference(mean, low, high, count, method, conclusive, sentence, tuple(differences.tolist()), metric)


def _one_seed(one: AnyEvaluation, other: AnyEvaluation) -> Difference:
    groups, metric = np.arange(one.n) if one.recordings is None else one.recordings, one.primary
    if isinstance(one, Evaluation) and isinstance(other, Evaluation):
        mean, drawn = _of_accuracy(one, other, groups)
    else:
        assert not isinstance(one, Evaluation)
        assert not isinstance(other, Evaluation)
        mean = one.metrics()[metric.name] - other.metrics()[metric.name]
        drawn = np.concatenate([one.resampled(counts) - other.resampled(counts) for counts in resamples(groups)])
    tail = (1 - CONFIDENCE) / 2
    low, high = (float(end) for end in np.quantile(drawn[~np.isnan(drawn)], [tail, 1 - tail]))
    sizes = int(groups.max()) + 1
    samples = f"{one.n} test samples" if one.recordings is None else f"{sizes} test recordings ({one.n} windows)"
    method = f"paired bootstrap over {samples}"
    better, worse = (low > 0, high < 0) if metric.higher_is_better else (high < 0, low > 0)
    verdict = "did better" if better else "did worse" if worse else "was neither clearly better nor worse"
    sentence = (
        f"With distillation the student {verdict} on these test samples: {_amount(mean, low, high, method, metric)}. "
        "One seed says nothing about other seeds."
    )
    return Difference(mean, low, high, 1, method, False, sentence, (mean,), metric)


def _of_accuracy(one: Evaluation, other: Evaluation, groups: NDArray[np.int64]) -> tuple[float, NDArray[np.float64]]:
    differences = one.correct.astype(int) - other.correct.astype(int)
    gained, sizes = np.bincount(groups, differences), np.bincount(groups)
    # Recordings of one size and gain are alike, so a resample is a multinomial draw of how many there are of each such kind.
    kinds, counts = np.unique(np.stack([gained, sizes], axis=1), axis=0, return_counts=True)
    drawn = np.random.default_rng(0).multinomial(len(sizes), counts / len(sizes), size=RESAMPLES)
    return float(differences.mean()), drawn @ kinds[:, 0] / (drawn @ kinds[:, 1])


def _amount(mean: float, low: float, high: float, method: str, metric: Metric) -> str:
    unit = "points" if metric.unit == "%" else metric.unit
    direction = "" if metric.higher_is_better else "; lower is better"
    of = f"{unit} of {metric.title}" if unit else f"of {metric.title}"
    interval = f"95 % interval {metric.signed(low)} to {metric.signed(high)}"
    if high - low < NO_SPREAD:
        interval = "no interval, all differences are equal"
    return f"{metric.signed(mean)} {of} ({interval}, {method}{direction})"
