"""Copies that were resampled, filtered or shifted a little: recordings with the same slow movement.

An *outline* is the lowest cosine components of a whole recording in time, which neither the sampling rate nor a low-pass filter
changes much. Outlines that correlate are compared after removing a trend and allowing for a small shift and stretch in time.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdcore.contracts.dataset import Sample, SampleKey
from kdcore.contracts.modality import Signal
from kdcore.contracts.protocol import Splits
from kdcore.data.near_copies import channels_of, is_recorded

COMPONENTS, GROUPS, SHORTEST = 16, 4, 20
"""Cosine components of an outline; channels, or means of as many groups of neighbours; samples of a recording that has one."""

LIKELY, SAME = 0.95, 0.998
"""Correlation from which on two outlines are compared, and share of the variance that must agree. Of different recordings of
UTD-MHAD, SPSW and the simulated motion, at most 0.9952 agrees."""

LONG, FEW = 1024, 96
"""Samples to which a longer recording is averaged; samples in its middle, of the channel that varies most, in which noise is
looked for."""

BLOCK, OTHERS, COMPARISONS, FOUND = 512, 16384, 500, 5
"""Test samples and other samples that are compared at once; pairs that are compared at most, and lines, per modality."""

RECORDED, SMOOTH = "r", "s"
"""First character of the outline of a recording with noise, and of one without: two smooth ones may be alike by nature."""


def outline(signal: Signal) -> str:
    """A recording's slow movement as text; empty for one that is short or does not move."""
    x = channels_of(signal.values, GROUPS)
    if len(x) < SHORTEST:
        return ""
    if signal.times is not None:
        even = np.linspace(signal.times[0], signal.times[-1], len(x))
        x = np.stack([np.interp(even, signal.times, channel) for channel in x.T], axis=1)
    middle = max(0, len(x) - FEW) // 2
    part = x[middle : middle + FEW]
    kind = RECORDED if is_recorded(part[:, [int(part.var(axis=0).argmax())]]) else SMOOTH
    if len(x) > LONG:
        edges = np.linspace(0, len(x), LONG + 1).astype(int)
        x = np.add.reduceat(x, edges[:-1], axis=0) / np.diff(edges)[:, None]
    x = x - x.mean(axis=0)
    found = _cosines(len(x))[0].T @ x
    size = float(np.linalg.norm(found))
    if not size > 1e-6 * float(np.linalg.norm(x)):
        return ""
    return kind + base64.b64encode((found / size).astype(np.float16).tobytes()).decode()


def resampled_copies(
    splits: Splits, outlines: Mapping[str, Mapping[SampleKey, str]], contents: Mapping[str, Mapping[SampleKey, str]]
) -> list[str]:
    """A line for each recording of the test split that seems to be in another split, too; at most a few for each modality.

    Args:
        splits: The samples of each split.
        outlines: Modality → sample → outline.
        contents: Modality → sample → hash of the values; equal recordings are left to `leakage.content_leaks`.
    """
    found = []
    for modality, known in outlines.items():
        alike = _alike(splits, known, contents.get(modality, {}))
        said = [
            f"the {modality} of {tested.key} (test) and {other.key} ({split}) may be one recording, resampled, filtered or "
            f"shifted ({100 * share:.1f} % of their slow movement is the same)"
            for share, tested, other, split in alike[:FOUND]
        ]
        more = len(alike) - FOUND
        found += [*said, *([f"{more} more pairs of the {modality} seem to be one recording"] if more > 0 else [])]
    return found


def _alike(
    splits: Splits, known: Mapping[SampleKey, str], contents: Mapping[SampleKey, str]
) -> list[tuple[float, Sample, Sample, str]]:
    """(share that is the same, sample of the test split, another sample, its split), the most similar first."""
    places = [(sample, split) for split, members in splits.samples.items() for sample in members if sample.key in known]
    lengths = {len(known[sample.key]) for sample, _ in places}
    found = []
    for length in lengths:
        here = [(sample, split) for sample, split in places if len(known[sample.key]) == length]
        tested = [sample for sample, split in here if split == "test"]
        others = [(sample, split) for sample, split in here if split != "test"]
        one, two = _decoded([known[each.key] for each in tested]), _decoded([known[each.key] for each, _ in others])
        for row, column in _likely(one, two):
            mine, (theirs, split) = tested[row], others[column]
            same = contents.get(mine.key, "") == contents.get(theirs.key)
            smooth = known[mine.key][0] == known[theirs.key][0] == SMOOTH
            if not same and not smooth and (share := common_movement(one[row], two[column])) >= SAME:
                found.append((share, mine, theirs, split))
    return sorted(found, key=lambda each: -each[0])


def _decoded(texts: Sequence[str]) -> NDArray[np.floating[Any]]:
    """(N, components, channels)."""
    raw = b"".join(base64.b64decode(text[1:]) for text in texts)
    return np.frombuffer(raw, np.float16).astype(np.float32).reshape(len(texts), COMPONENTS, -1 if texts else 1)


def _likely(one: NDArray[np.floating[Any]], two: NDArray[np.floating[Any]]) -> Iterator[tuple[int, int]]:
    """Rows of `one` and `two` that correlate most, at most `COMPARISONS`."""
    if not len(one) or not len(two):
        return
    best: list[tuple[float, int, int]] = []
    flat = two.reshape(len(two), -1)
    for start, other in product(range(0, len(one), BLOCK), range(0, len(two), OTHERS)):
        correlation = one[start : start + BLOCK].reshape(-1, flat.shape[1]) @ flat[other : other + OTHERS].T
        rows, columns = np.nonzero(np.abs(correlation, out=correlation) > LIKELY)
        values = correlation[rows, columns]
        top = np.argsort(-values)[:COMPARISONS]
        best += zip(values[top].tolist(), (start + rows[top]).tolist(), (other + columns[top]).tolist(), strict=True)
        best = sorted(best, reverse=True)[:COMPARISONS]
    yield from ((row, column) for _, row, column in best)


def common_movement(one: NDArray[np.floating[Any]], two: NDArray[np.floating[Any]]) -> float:
    """Share of the variance of `two` that is `one` times a factor, a little shifted and stretched in time.

    Linear and quadratic trends do not count: recordings that merely drift are alike by chance.

    Args:
        one: (components, channels).
        two: Likewise.
    """
    points = 4 * COMPONENTS
    cosines, sines, trend, time = _curves(points)
    flow = sines @ one

    def level(curve: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        return (curve - trend @ (trend.T @ curve)).ravel()

    wanted = level(cosines @ two)
    given = np.stack([level(cosines @ one), level(flow), level(flow * time[:, None])], axis=1)
    rest = wanted - given @ np.linalg.lstsq(given, wanted, rcond=None)[0]
    total = float(wanted @ wanted)
    return 1 - float(rest @ rest) / total if total > 0 else 0.0


@lru_cache(maxsize=64)
def _cosines(length: int) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    """(length, components) cosines with 1, 2, … half periods, and their times between 0 and 1."""
    time = (np.arange(length) + 0.5) / length
    return np.cos(np.pi * np.outer(time, np.arange(1, COMPONENTS + 1))) * (2 / length), time


@lru_cache(maxsize=1)
def _curves(points: int) -> tuple[NDArray[Any], ...]:
    """Cosines, their derivatives, an orthonormal basis of quadratic trends, and times, each with a row for each point."""
    cosines, time = _cosines(points)
    waves = np.pi * np.arange(1, COMPONENTS + 1)
    trend = np.linalg.qr(np.stack([np.ones(points), time, time**2], axis=1))[0]
    return cosines * (points / 2), -np.sin(np.outer(time, waves)) * waves, trend, time
