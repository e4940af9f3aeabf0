"""Detection of resampled, filtered or slightly shifted copies: recordings with the same slow movement.

An *outline* consists of the lowest cosine components of a recording over time, which resampling and low-pass filtering hardly
change. Outlines that correlate are compared after removing a trend and fitting a small shift and stretch in time.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdcore import LeakageCheck, Sample, SampleKey, Signal, Splits
from kdcore_inspect.near_copies import channels_of, is_recorded

COMPONENTS, GROUPS, SHORTEST = 16, 4, 20
"""Number of cosine components, maximum number of channels or groups of channels, and minimum number of samples."""

LIKELY, SAME = 0.95, 0.998
"""Correlation above which two outlines are compared, and the share of the variance that must agree. For different recordings
of UTD-MHAD, SPSW and simulated motion, the share is at most 0.9952."""

LONG, FEW = 1024, 96
"""Number of samples to which a longer recording is averaged, and number of samples in its middle that are checked for noise, in
the channel with the largest variance."""

BLOCK, OTHERS, COMPARISONS, FOUND = 512, 16384, 500, 5
"""Block sizes of test and other samples, and the maximum number of compared pairs and of reported lines per modality."""

RECORDED, SMOOTH = "r", "s"
"""First character of an outline with and without noise. Two smooth recordings may be similar by nature."""


class ResampledCopies(LeakageCheck):
    """Search for test recordings whose slow movement is that of a recording in another split."""

    name = "resampled-copies"
    certain = False

    def summary(self, signal: Signal) -> str:
        """Return the slow movement of a recording as text; empty if it is too short or constant."""
        x = channels_of(signal.values, GROUPS)
        if len(x) < SHORTEST:
            return ""
        if signal.times is not None:
            even = np.linspace(signal.times[0], signal.times[-1], len(x))
            x = np.stack([np.interp(even, signal.times, channel) for channel in x.T], axis=1)
        middle = max(0, len(x) - FEW) // 2
        section = x[middle : middle + FEW]
        kind = RECORDED if is_recorded(section[:, [int(section.var(axis=0).argmax())]]) else SMOOTH
        if len(x) > LONG:
            edges = np.linspace(0, len(x), LONG + 1).astype(int)
            x = np.add.reduceat(x, edges[:-1], axis=0) / np.diff(edges)[:, None]
        x = x - x.mean(axis=0)
        components = _cosines(len(x))[0].T @ x
        norm = float(np.linalg.norm(components))
        if not norm > 1e-6 * float(np.linalg.norm(x)):
            return ""
        return kind + base64.b64encode((components / norm).astype(np.float16).tobytes()).decode()

    def findings(
        self,
        splits: Splits,
        summaries: Mapping[str, Mapping[SampleKey, str]],
        contents: Mapping[str, Mapping[SampleKey, str]],
        read: Callable[[Sample, str], Signal],
    ) -> list[str]:
        """Return one line per possible copy, at most `FOUND` per modality."""
        lines = []
        for modality, outlines in summaries.items():
            pairs = _similar_pairs(splits, outlines, contents.get(modality, {}))
            lines += [
                f"the {modality} of {tested.key} (test) and {other.key} ({split}) may be one recording, resampled, filtered or "
                f"shifted ({100 * share:.1f} % of their slow movement is the same)"
                for share, tested, other, split in pairs[:FOUND]
            ]
            if len(pairs) > FOUND:
                lines.append(f"{len(pairs) - FOUND} more pairs of the {modality} seem to be one recording")
        return lines


def _similar_pairs(
    splits: Splits, outlines: Mapping[SampleKey, str], contents: Mapping[SampleKey, str]
) -> list[tuple[float, Sample, Sample, str]]:
    """Return (common share, test sample, other sample, split of the other sample), sorted by decreasing share."""
    samples_and_splits = [
        (sample, split) for split, members in splits.samples.items() for sample in members if sample.key in outlines
    ]
    lengths = {len(outlines[sample.key]) for sample, _ in samples_and_splits}
    pairs = []
    for length in lengths:
        same_length = [(sample, split) for sample, split in samples_and_splits if len(outlines[sample.key]) == length]
        tested = [sample for sample, split in same_length if split == "test"]
        others = [(sample, split) for sample, split in same_length if split != "test"]
        one, two = _decoded([outlines[each.key] for each in tested]), _decoded([outlines[each.key] for each, _ in others])
        for row, column in _most_correlated(one, two):
            tested_sample, (other_sample, split) = tested[row], others[column]
            same = contents.get(tested_sample.key, "") == contents.get(other_sample.key)
            smooth = outlines[tested_sample.key][0] == outlines[other_sample.key][0] == SMOOTH
            if not same and not smooth and (share := common_movement(one[row], two[column])) >= SAME:
                pairs.append((share, tested_sample, other_sample, split))
    return sorted(pairs, key=lambda each: -each[0])


def _decoded(texts: Sequence[str]) -> NDArray[np.floating[Any]]:
    """Return outlines as an array, (N, components, channels)."""
    raw = b"".join(base64.b64decode(text[1:]) for text in texts)
    return np.frombuffer(raw, np.float16).astype(np.float32).reshape(len(texts), COMPONENTS, -1 if texts else 1)


def _most_correlated(one: NDArray[np.floating[Any]], two: NDArray[np.floating[Any]]) -> Iterator[tuple[int, int]]:
    """Yield the indices of at most `COMPARISONS` pairs in `one` and `two` with the highest correlation."""
    if not len(one) or not len(two):
        return
    pairs: list[tuple[float, int, int]] = []
    flat = two.reshape(len(two), -1)
    for start, other in product(range(0, len(one), BLOCK), range(0, len(two), OTHERS)):
        correlation = one[start : start + BLOCK].reshape(-1, flat.shape[1]) @ flat[other : other + OTHERS].T
        rows, columns = np.nonzero(np.abs(correlation, out=correlation) > LIKELY)
        values = correlation[rows, columns]
        top = np.argsort(-values)[:COMPARISONS]
        pairs += zip(values[top].tolist(), (start + rows[top]).tolist(), (other + columns[top]).tolist(), strict=True)
        pairs = sorted(pairs, reverse=True)[:COMPARISONS]
    yield from ((row, column) for _, row, column in pairs)


def common_movement(one: NDArray[np.floating[Any]], two: NDArray[np.floating[Any]]) -> float:
    """Return the share of the variance of `two` explained by `one`, up to a factor and a small shift and stretch in time.

    Linear and quadratic trends are removed first, since recordings that merely drift are similar by chance.

    Args:
        one: Outline, (components, channels).
        two: Outline, (components, channels).
    """
    points = 4 * COMPONENTS
    cosines, sines, trend, time = _curves(points)
    flow = sines @ one

    def level(curve: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        return (curve - trend @ (trend.T @ curve)).ravel()

    target = level(cosines @ two)
    regressors = np.stack([level(cosines @ one), level(flow), level(flow * time[:, None])], axis=1)
    residual = target - regressors @ np.linalg.lstsq(regressors, target, rcond=None)[0]
    total = float(target @ target)
    return 1 - float(residual @ residual) / total if total > 0 else 0.0


@lru_cache(maxsize=64)
def _cosines(length: int) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    """Return cosines with 1, 2, … half periods, (length, components), and their times between 0 and 1, (length,)."""
    time = (np.arange(length) + 0.5) / length
    return np.cos(np.pi * np.outer(time, np.arange(1, COMPONENTS + 1))) * (2 / length), time


@lru_cache(maxsize=1)
def _curves(points: int) -> tuple[NDArray[Any], ...]:
    """Return cosines, their derivatives, an orthonormal basis of quadratic trends, and times, with one row per point."""
    cosines, time = _cosines(points)
    waves = np.pi * np.arange(1, COMPONENTS + 1)
    trend = np.linalg.qr(np.stack([np.ones(points), time, time**2], axis=1))[0]
    return cosines * (points / 2), -np.sin(np.outer(time, waves)) * waves, trend, time
