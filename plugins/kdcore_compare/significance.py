"""Is a difference more than chance? Student's t over pairs of runs, or Welch's where runs do not pair up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
ROUNDING = 1e-12
"""Differences that spread no wider than this are the same but for rounding."""


@dataclass(frozen=True)
class Difference:
    """A mean difference, and what can be said of it.

    Args:
        mean: One minus the other, in units of the metric.
        low: Lower end of the 95 % interval; None where there is none.
        high: Upper end of it.
        p: Two-sided p value of no difference; None where there is none.
        n: How many differences it is the mean of; with Welch's test, of both sides together.
        test: The test used, exactly.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    n: int
    test: str

    @property
    def conclusive(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def verdict(self, more_is_better: bool = True) -> str:
        """What may be concluded, in a word or two; `test` says why where that is nothing."""
        if self.low is None:
            return "no conclusion"
        if not self.conclusive:
            return "unclear"
        return "better" if (self.mean > 0) == more_is_better else "worse"


def paired(differences: Sequence[float], unit: str = "seeds") -> Difference:
    """Student's t-test that the mean of paired differences :math:`d` is zero, with the interval

    .. math:: \\bar d \\pm t_{0.975,\\,n-1}\\, s_d / \\sqrt n

    Args:
        differences: One for each pair of runs.
        unit: What a pair is of, in the plural.
    """
    d = np.asarray(differences, dtype=np.float64)
    n, mean = len(d), float(d.mean())
    if n < 2:
        return Difference(mean, None, None, None, n, f"a single pair ({unit}): nothing can be concluded")
    test = f"paired Student's t-test, two-sided, {n} {unit}, {n - 1} degree{'s' if n > 2 else ''} of freedom"
    spread = float(d.std(ddof=1))
    if spread < ROUNDING:
        same = "no difference at all" if abs(mean) < ROUNDING else "every difference is the same: no spread to judge by"
        return Difference(mean, None, None, None, n, same)
    error = spread / n**0.5
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * error
    return Difference(mean, mean - half, mean + half, float(2 * stats.t.sf(abs(mean) / error, n - 1)), n, test)


def unpaired(one: Sequence[float], other: Sequence[float]) -> Difference:
    """Welch's t-test that two means are equal, the spreads being unequal; degrees of freedom by Welch and Satterthwaite.

    Args:
        one: A value for each run.
        other: Those it is compared with.
    """
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    n, mean = len(a) + len(b), float(a.mean() - b.mean())
    if min(len(a), len(b)) < 2:
        return Difference(mean, None, None, None, n, "one run: nothing can be concluded")
    of_one, of_other = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    error = float(np.sqrt(of_one + of_other))
    if error < ROUNDING:
        return Difference(mean, None, None, None, n, "no spread to judge by")
    freedom = float((of_one + of_other) ** 2 / (of_one**2 / (len(a) - 1) + of_other**2 / (len(b) - 1)))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    test = f"Welch's t-test, two-sided, unpaired, {len(a)} and {len(b)} runs, {freedom:.1f} degrees of freedom"
    return Difference(mean, mean - half, mean + half, float(2 * stats.t.sf(abs(mean) / error, freedom)), n, test)
