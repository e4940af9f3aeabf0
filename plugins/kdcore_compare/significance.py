"""Statistical tests of a difference: Student's t-test over pairs of runs, Welch's t-test if runs do not pair up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
ROUNDING = 1e-12
"""A standard deviation below this is rounding error."""


UNDEFINED = "the metric is undefined on some test samples: no conclusion is possible"


@dataclass(frozen=True)
class Difference:
    """A mean difference with its confidence interval and p value.

    Args:
        mean: Mean difference, in units of the metric.
        low: Lower end of the 95 % interval; None if there is none.
        high: Upper end of the interval.
        p: Two-sided p value; None if there is none.
        n: Number of differences; for Welch's test, the number of runs on both sides.
        test: Name of the test, with its degrees of freedom, or the reason why there is none.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    n: int
    test: str

    @property
    def conclusive(self) -> bool:
        """True if the interval excludes zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def verdict(self, more_is_better: bool = True, p: float | None = None) -> str:
        """The conclusion: ``better``, ``worse``, ``unclear`` or ``no conclusion`` (see `test` for the reason).

        Args:
            more_is_better: True if a positive difference is an improvement.
            p: p value corrected for multiple comparisons; the uncorrected one by default.
        """
        if self.low is None:
            return "no conclusion"
        if not (self.conclusive if p is None else p < 1 - CONFIDENCE):
            return "unclear"
        return "better" if (self.mean > 0) == more_is_better else "worse"


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for multiple comparisons by Holm's step-down method, in the order given.

    .. math:: \\tilde p_{(i)} = \\max_{j \\le i} \\min(1, (m - j + 1)\\, p_{(j)})

    Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979).

    Args:
        p_values: Uncorrected p values of m comparisons.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def paired(differences: Sequence[float], unit: str = "seeds", overlap: float = 0.0) -> Difference:
    """Paired Student's t-test of differences :math:`d`, with the confidence interval

    .. math:: \\bar d \\pm t_{0.975,\\,n-1}\\, s_d \\sqrt{1 / n + n_\\text{test} / n_\\text{train}}

    The second term under the root is left out unless resamples overlap: Nadeau and Bengio, Inference for the generalization
    error, Machine Learning 52 (2003).

    Args:
        differences: One difference for each pair.
        unit: Name of the units that are paired, in the plural.
        overlap: Test samples per training sample, for repeated cross-validation; 0 for independent pairs.
    """
    d = np.asarray(differences, dtype=np.float64)
    n, mean = len(d), float(d.mean())
    if np.isnan(mean):
        return Difference(mean, None, None, None, n, UNDEFINED)
    if n < 2:
        return Difference(mean, None, None, None, n, f"a single pair ({unit}): no conclusion is possible")
    name = "corrected resampled t-test (Nadeau and Bengio)" if overlap else "paired Student's t-test"
    test = f"{name}, two-sided, {n} {unit}, {n - 1} degree{'s' if n > 2 else ''} of freedom"
    spread = float(d.std(ddof=1))
    if spread < ROUNDING:
        equal = "all differences are equal: their spread cannot be estimated"
        return Difference(mean, None, None, None, n, "all differences are zero" if abs(mean) < ROUNDING else equal)
    error = spread * (1 / n + overlap) ** 0.5
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * error
    return Difference(mean, mean - half, mean + half, float(2 * stats.t.sf(abs(mean) / error, n - 1)), n, test)


def unpaired(one: Sequence[float], other: Sequence[float]) -> Difference:
    """Welch's t-test of two independent samples with unequal variances (Welch-Satterthwaite degrees of freedom).

    Args:
        one: One value for each run.
        other: Values of the runs compared with.
    """
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    n, mean = len(a) + len(b), float(a.mean() - b.mean())
    if np.isnan(mean):
        return Difference(mean, None, None, None, n, UNDEFINED)
    if min(len(a), len(b)) < 2:
        return Difference(mean, None, None, None, n, "one run: no conclusion is possible")
    of_one, of_other = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    error = float(np.sqrt(of_one + of_other))
    if error < ROUNDING:
        return Difference(mean, None, None, None, n, "all values are equal: their spread cannot be estimated")
    freedom = float((of_one + of_other) ** 2 / (of_one**2 / (len(a) - 1) + of_other**2 / (len(b) - 1)))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    test = f"Welch's t-test, two-sided, unpaired, {len(a)} and {len(b)} runs, {freedom:.1f} degrees of freedom"
    return Difference(mean, mean - half, mean + half, float(2 * stats.t.sf(abs(mean) / error, freedom)), n, test)
