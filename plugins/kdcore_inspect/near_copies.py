"""Detection of near copies: recordings that are rescaled, inverted, trimmed or slightly noisy copies of another.

The search has two steps. First, each recording gets a *sketch*: hashes of short segments that start where the signal changes
most, so that trimming keeps them. Segments are hashed after removing mean, scale and sign, and rounding coarsely. Second,
recordings that share a hash are compared sample by sample, so that hash collisions cause no false alarms.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from kdcore import DataError, LeakageCheck, Sample, SampleKey, Signal, Splits

PIECE, REACH = 16, 4
"""Length of a segment in samples, and the radius in samples within which its start has the largest change."""

HASHES, DIGITS = 16, 10
"""Maximum number of hashes in a sketch (the smallest are kept), and hexadecimal digits per hash."""

GROUPS = 8
"""Maximum number of channels. More channels are averaged in this many groups of neighbours."""

DISTINCT = 12
"""Minimum number of distinct values in a rounded segment. Simpler ones, such as a single step, may match by chance."""

SHARED = 20
"""Maximum number of test recordings that share a hash. A hash shared by more is a common pattern."""

OVERLAP, TOLERANCE = 0.5, 1e-6
"""Minimum share of the shorter recording that must match, and the maximum unexplained share of its variance."""

ORDER, NOISE = 8, 1e-5
"""Order of the linear prediction of a signal, and the minimum share of its variance that must be unpredictable. Predictable
signals, such as a sine or a ramp, are computed rather than recorded, and may be equal for that reason."""

_STEPS = np.arange(PIECE)

COMPARISONS, FOUND = 500, 5
"""Maximum number of pairs compared sample by sample, and of near copies reported, per modality."""


class NearCopies(LeakageCheck):
    """Search for test recordings with a near copy in another split.

    Two recordings :math:`x, y` are near copies if, over at least half of the shorter one, the best fit
    :math:`y \\approx a x + b` with one factor and an offset per channel leaves at most a millionth of the variance
    unexplained. Signals without noise are ignored.
    """

    name = "near-copies"
    certain = True

    def summary(self, signal: Signal) -> str:
        """Return the hashes of a recording's characteristic segments as text; empty if it is too short or simple."""
        return "".join(sorted(_pieces(channels_of(signal.values)))[:HASHES])

    def findings(
        self,
        splits: Splits,
        summaries: Mapping[str, Mapping[SampleKey, str]],
        contents: Mapping[str, Mapping[SampleKey, str]],
        read: Callable[[Sample, str], Signal],
    ) -> list[str]:
        """Return one line per near copy, at most `FOUND` per modality."""
        lines = []
        for modality, sketches in summaries.items():
            count = 0
            for number, (tested, other, split) in enumerate(_candidates(splits, sketches, contents.get(modality, {}))):
                if number == COMPARISONS or count == FOUND:
                    break
                try:
                    one, two = read(tested, modality), read(other, modality)
                except (DataError, ValueError):
                    continue
                if share := common_share(one.values, two.values):
                    count += 1
                    lines.append(
                        f"the {modality} of {tested.key} (test) and {other.key} ({split}) are the same recording except for "
                        f"scale, offset or length ({100 * share:.0f} % of the shorter one)"
                    )
        return lines


def _candidates(
    splits: Splits, sketches: Mapping[SampleKey, str], contents: Mapping[SampleKey, str]
) -> Iterator[tuple[Sample, Sample, str]]:
    """Yield pairs that share a hash as (test sample, other sample, split of the other sample)."""
    tested: dict[str, list[Sample]] = defaultdict(list)
    for sample in splits.samples.get("test", ()):
        for piece in _hashes(sketches.get(sample.key, "")):
            tested[piece].append(sample)
    for split, members in splits.samples.items():
        for sample in members if split != "test" else ():
            pieces = _hashes(sketches.get(sample.key, ""))
            rare = [tested[piece] for piece in pieces if piece in tested and len(tested[piece]) <= SHARED]
            matches = {each.key: each for group in rare for each in group}
            for key, each in matches.items():
                if contents.get(key, "") != contents.get(sample.key):
                    yield each, sample, split


def _hashes(text: str) -> set[str]:
    return {text[start : start + DIGITS] for start in range(0, len(text), DIGITS)}


def channels_of(values: ArrayLike, groups: int = GROUPS) -> NDArray[np.float64]:
    """Return values as (T, C) with C at most `groups`; with T = 0 if any value is not finite."""
    flat = np.asarray(values)
    flat = flat.reshape(len(flat), -1)
    if flat.shape[1] > groups:
        starts, sizes = _groups(flat.shape[1], groups)
        if flat.dtype == np.uint8 and flat.shape[1] % groups == 0:  # pixels: the same sums, four times as fast
            flat = flat.reshape(len(flat), groups, -1).sum(axis=2, dtype=np.uint32) / sizes
        else:
            flat = np.add.reduceat(flat, starts, axis=1, dtype=np.float64) / sizes
    flat = flat.astype(np.float64)
    return flat if np.isfinite(flat).all() else flat[:0]


@cache
def _groups(channels: int, groups: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return start and size of each group of neighbouring channels."""
    edges = np.linspace(0, channels, groups + 1).astype(int)
    return edges[:-1], np.diff(edges)


def _pieces(x: NDArray[np.float64]) -> dict[str, int]:
    """Return the start of each characteristic segment by hash."""
    if len(x) < max(PIECE, 2 * REACH + 2):
        return {}
    change = (np.diff(x, axis=0) ** 2).sum(axis=1)
    inner = change[REACH : len(change) - REACH]
    local_maximum = inner
    for shift in range(2 * REACH + 1):
        local_maximum = np.maximum(local_maximum, change[shift : shift + len(inner)])
    starts = ((local_maximum == inner) & (inner > 0)).nonzero()[0] + REACH
    starts = starts[starts + PIECE <= len(x)]
    if not len(starts):
        return {}
    pieces = x[starts[:, None] + _STEPS].transpose(0, 2, 1)
    pieces = pieces - np.add.reduce(pieces, axis=2, keepdims=True) / PIECE
    flat = pieces.reshape(len(starts), x.shape[1] * PIECE)
    peak = np.take_along_axis(flat, np.abs(flat).argmax(axis=1)[:, None], axis=1)
    rounded = np.round(100 * flat / np.where(peak == 0, 1, peak)).astype(np.int8)
    ordered = np.sort(rounded, axis=1)
    varied = (ordered[:, 1:] != ordered[:, :-1]).sum(axis=1) + 1 >= DISTINCT
    return {
        hashlib.blake2b(piece.tobytes(), digest_size=DIGITS // 2).hexdigest(): int(start)
        for piece, start in zip(rounded[varied], starts[varied], strict=True)
    }


def common_share(one: ArrayLike, two: ArrayLike) -> float:
    """Return the share of the shorter recording that equals the other up to a factor and offsets; 0 if below `OVERLAP`.

    Args:
        one: Values, (T, …).
        two: Values with the same channels, (T', …).
    """
    x, y = channels_of(one), channels_of(two)
    if x.shape[1:] != y.shape[1:]:
        return 0.0
    starts, others = _pieces(x), _pieces(y)
    shifts = Counter(starts[piece] - others[piece] for piece in starts.keys() & others.keys())
    shorter = min(len(x), len(y))
    for shift, _ in shifts.most_common(3):
        first, last = max(0, shift), min(len(x), len(y) + shift)
        segment, other = x[first:last], y[first - shift : last - shift]
        if len(segment) >= max(PIECE, OVERLAP * shorter) and _same(segment, other) and is_recorded(segment):
            return (last - first) / shorter
    return 0.0


def _same(x: NDArray[np.float64], y: NDArray[np.float64]) -> bool:
    """Return whether one signal is the other times a factor, plus an offset per channel."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    return bool((x * y).sum() ** 2 >= (1 - TOLERANCE) * (x * x).sum() * (y * y).sum() > 0)


def is_recorded(x: NDArray[np.float64]) -> bool:
    """Return whether part of the signal, such as sensor noise, cannot be predicted linearly from preceding samples."""
    order = min(ORDER, len(x) // 3)
    x = x - x.mean(axis=0)
    residual = 0.0
    for channel in x.T:
        predictors = np.column_stack([sliding_window_view(channel, order)[:-1], np.ones(len(channel) - order)])
        residual += float(
            ((channel[order:] - predictors @ np.linalg.lstsq(predictors, channel[order:], rcond=None)[0]) ** 2).sum()
        )
    return residual > NOISE * float((x[order:] ** 2).sum())
