"""Metrics of a participant on the test samples, and the gain that distillation brought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special  # scipy.stats is slow to import

CONFIDENCE = 0.95
RESAMPLES = 10_000


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One participant's answers to N samples of C classes, and what they are worth.

    Args:
        accuracy: Share of samples answered right.
        accuracy_interval: Wilson's 95 % interval of it: how sure N samples can make us.
        macro_f1: F1 averaged over the classes that occur among labels or predictions.
        loss: Mean negative log-likelihood of the true class, in nats.
        confusion: (C, C) counts; row = true class, column = predicted.
        recall: (C,) share of each class answered right; NaN where the class has no sample.
        predictions: (N,) most probable classes.
        labels: (N,) true classes.
        probabilities: (N, C) class probabilities.
        rows: (N,) places of these samples among all labelled ones; None for all of them.
    """

    accuracy: float
    accuracy_interval: tuple[float, float]
    macro_f1: float
    loss: float
    confusion: NDArray[np.int64]
    recall: NDArray[np.float64]
    predictions: NDArray[np.int64]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    rows: NDArray[np.int64] | None = None

    @property
    def n(self) -> int:
        """The number of samples."""
        return len(self.labels)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(N,) which samples were answered right."""
        return self.predictions == self.labels

    def metrics(self) -> dict[str, float]:
        """The numbers to track."""
        return {"accuracy": self.accuracy, "macro_f1": self.macro_f1, "loss": self.loss}


def evaluate(probabilities: ArrayLike, labels: ArrayLike) -> Evaluation:
    """Compare class probabilities with the truth.

    Args:
        probabilities: (N, C), rows that sum to 1.
        labels: (N,) integers in 0 … C - 1.

    Raises:
        ValueError: If shapes, probabilities or labels are not as above, or there are no samples.
    """
    p, y = _probabilities(probabilities), np.asarray(labels)
    if y.shape != p.shape[:1] or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"labels must be {len(p)} integers, one per row of probabilities, not {y.dtype} {y.shape}")
    if y.min() < 0 or y.max() >= p.shape[1]:
        raise ValueError(f"labels must lie in 0 … {p.shape[1] - 1}, found {y.min()} … {y.max()}")
    y, predictions = y.astype(np.int64), p.argmax(axis=1)
    confusion = np.zeros((p.shape[1], p.shape[1]), dtype=np.int64)
    np.add.at(confusion, (y, predictions), 1)
    right, of_class = confusion.diagonal(), confusion.sum(axis=1)
    return Evaluation(
        accuracy=float(right.sum() / len(y)),
        accuracy_interval=wilson_interval(int(right.sum()), len(y)),
        macro_f1=_macro_f1(confusion),
        loss=float(-np.log(np.maximum(p[np.arange(len(y)), y], np.finfo(np.float64).tiny)).mean()),
        confusion=confusion,
        recall=np.divide(right, of_class, out=np.full(len(right), np.nan), where=of_class > 0),
        predictions=predictions,
        labels=y,
        probabilities=p,
    )


def wilson_interval(right: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of which `right` of `n` were observed.

    .. math:: \\frac{\\hat p + z^2/2n \\pm z \\sqrt{\\hat p (1 - \\hat p)/n + z^2/4n^2}}{1 + z^2/n}

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927.
    """
    z, share = float(special.ndtri((1 + CONFIDENCE) / 2)), right / n
    middle, half = share + z * z / (2 * n), z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    low, high = (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
    return (0.0 if right == 0 else low, 1.0 if right == n else high)


def _probabilities(values: ArrayLike) -> NDArray[np.float64]:
    p = np.asarray(values, dtype=np.float64)
    if p.ndim != 2 or 0 in p.shape:
        raise ValueError(f"probabilities must have shape (samples, classes), at least one of each, not {p.shape}")
    if not np.isfinite(p).all() or p.min() < 0 or np.abs(p.sum(axis=1) - 1).max() > 1e-3:
        raise ValueError("probabilities must be finite, not negative, and sum to 1 in each row")
    return p


def _macro_f1(confusion: NDArray[np.int64]) -> float:
    occurrences = confusion.sum(axis=0) + confusion.sum(axis=1)
    seen = occurrences > 0
    return float((2 * confusion.diagonal()[seen] / occurrences[seen]).mean())


def combine(probabilities: Sequence[ArrayLike], rule: Literal["average", "max"] = "average") -> NDArray[np.float64]:
    """The answer of several participants together.

    Args:
        probabilities: One (N, C) array per participant, of the same samples.
        rule: ``average`` of the probabilities, or the ``max`` over participants, scaled to sum to 1 again.

    Returns:
        (N, C) probabilities.

    Raises:
        ValueError: If there are none or their shapes differ.
    """
    tables = [_probabilities(each) for each in probabilities]
    if len({table.shape for table in tables}) != 1:
        raise ValueError(f"probabilities of the same samples and classes are needed, not {[table.shape for table in tables]}")
    together = reduce(np.maximum, tables) if rule == "max" else np.mean(tables, axis=0)
    return together / together.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Difference:
    """The student's accuracy with distillation minus that without.

    Args:
        mean: Mean difference over seeds, as a fraction (0.01 is one percentage point).
        low: Lower end of the 95 % interval.
        high: Upper end of it.
        n_seeds: How many pairs of runs.
        method: How the interval was made.
        conclusive: Whether several seeds agree so well that the interval leaves out zero.
        sentence: All of it in words.
        per_seed: The difference of each seed, in the run's order.
    """

    mean: float
    low: float
    high: float
    n_seeds: int
    method: str
    conclusive: bool
    sentence: str
    per_seed: tuple[float, ...] = ()


def paired_difference(with_kd: Sequence[Evaluation], without: Sequence[Evaluation]) -> Difference:
    """Did distillation help? Both students of a seed start alike and answer the same samples, so differences are paired.

    With several seeds, the interval is Student's t over the seeds' differences:

    .. math:: \\bar d \\pm t_{0.975, S-1}\\, s_d / \\sqrt S

    With one seed, it is a percentile bootstrap over the test samples (always the same resamples), which can say
    nothing about other seeds and is therefore never conclusive.

    Args:
        with_kd: The distilled student's evaluations, one per seed.
        without: Those of its twin without distillation, same seeds in the same order.

    Raises:
        ValueError: If the two do not pair up.
    """
    if not with_kd or len(with_kd) != len(without):
        raise ValueError(
            f"one evaluation with and one without distillation per seed is needed, not {len(with_kd)} and {len(without)}"
        )
    if any(not np.array_equal(one.labels, other.labels) for one, other in zip(with_kd, without, strict=True)):
        raise ValueError("evaluations of a seed must be of the same test samples in the same order")
    if len(with_kd) == 1:
        return _one_seed(with_kd[0], without[0])
    return _several_seeds(np.array([one.accuracy - other.accuracy for one, other in zip(with_kd, without, strict=True)]))


def _several_seeds(differences: NDArray[np.float64]) -> Difference:
    count, mean, spread = len(differences), float(differences.mean()), float(differences.std(ddof=1))
    half = float(special.stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * spread / count**0.5
    low, high, method = mean - half, mean + half, f"paired t over {count} seeds"
    if spread < 1e-12 and mean:
        conclusive, verdict = False, "Every seed differs by the same amount, so there is no spread to judge by"
    else:
        conclusive = low > 0 or high < 0
        verdict = (
            ("Distillation helped" if low > 0 else "Distillation hurt") if conclusive else "No clear effect of distillation"
        )
    sentence = f"{verdict}: {_amount(mean, low, high, method)}."
    return Difference(mean, low, high, count, method, conclusive, sentence, tuple(differences.tolist()))


def _one_seed(one: Evaluation, other: Evaluation) -> Difference:
    differences = one.correct.astype(int) - other.correct.astype(int)
    share = np.array([(differences == value).mean() for value in (-1, 0, 1)])
    # A resample of the samples is a multinomial draw of how many of them got worse, stayed, got better.
    worse, _, better = np.random.default_rng(0).multinomial(one.n, share, size=RESAMPLES).T
    tail = (1 - CONFIDENCE) / 2
    low, high = (float(end) for end in np.quantile((better - worse) / one.n, [tail, 1 - tail]))
    mean, method = float(differences.mean()), f"paired bootstrap over {one.n} test samples"
    verdict = "did better" if low > 0 else "did worse" if high < 0 else "was neither clearly better nor worse"
    sentence = (
        f"With distillation the student {verdict} on these test samples: {_amount(mean, low, high, method)}. "
        "One seed says nothing about other seeds."
    )
    return Difference(mean, low, high, 1, method, False, sentence, (mean,))


def _amount(mean: float, low: float, high: float, method: str) -> str:
    return f"{100 * mean:+.1f} points of accuracy (95 % interval {100 * low:+.1f} to {100 * high:+.1f}, {method})"
