"""Near copies: recordings that are another one rescaled, inverted, trimmed, or with a trace of noise.

Two steps find them. Each recording gets a *sketch*, a few hashes of short pieces that begin where the signal changes most, so
that the same pieces are found after trimming. A piece is hashed without its mean, scale and sign, coarsely rounded. Recordings
that share a hash are then compared sample by sample, so a coincidence of hashes is no false alarm.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from kdcore.contracts.dataset import Sample, SampleKey
from kdcore.contracts.modality import Signal
from kdcore.contracts.protocol import Splits
from kdcore.errors import DataError

PIECE, REACH = 16, 4
"""Samples of a piece in time; samples before and after its start among which the signal changes most there."""

HASHES, DIGITS = 16, 10
"""Hashes of a sketch, the smallest of all; hexadecimal digits of each."""

GROUPS = 8
"""Channels that are looked at; of more, means of as many groups of neighbours."""

DISTINCT = 12
"""Different values that a piece needs after rounding; simpler ones, such as a single step, may be equal by chance."""

SHARED = 20
"""Recordings of the test split that may share a hash; what more of them have is a common pattern."""

OVERLAP, TOLERANCE = 0.5, 1e-6
"""Share of the shorter recording that must be the same, and the share of its variance that may differ."""

ORDER, NOISE = 8, 1e-5
"""Earlier samples from which a signal is predicted, and the share of its variance that must be beyond that prediction. What
follows from itself, such as a sine or a ramp, was computed, not recorded: two of them may be equal by nature."""

_STEPS = np.arange(PIECE)

COMPARISONS, FOUND = 500, 5
"""Pairs that are compared sample by sample, at most, and near copies after which the search ends, per modality."""


def sketch(signal: Signal) -> str:
    """Hashes of a recording's characteristic pieces as text; empty for a recording that is short or simple."""
    return "".join(sorted(_pieces(channels_of(signal.values)))[:HASHES])


def near_copies(
    splits: Splits,
    sketches: Mapping[str, Mapping[SampleKey, str]],
    contents: Mapping[str, Mapping[SampleKey, str]],
    read: Callable[[Sample, str], Signal],
) -> list[str]:
    """A line for each recording of the test split of which another split has a near copy; at most a few for each modality.

    Two recordings :math:`x, y` are near copies if, over at least half of the shorter one, the best
    :math:`y \\approx a x + b` with one factor and an offset for each channel leaves at most a millionth of the variance.
    Signals without noise are not judged.

    Args:
        splits: The samples of each split.
        sketches: Modality → sample → sketch.
        contents: Modality → sample → hash of the values; equal recordings are left to `leakage.content_leaks`.
        read: Reads the recording of a sample.
    """
    found = []
    for modality, known in sketches.items():
        said = 0
        for number, (tested, other, split) in enumerate(_candidates(splits, known, contents.get(modality, {}))):
            if number == COMPARISONS or said == FOUND:
                break
            try:
                one, two = read(tested, modality), read(other, modality)
            except (DataError, ValueError):
                continue
            if share := common_share(one.values, two.values):
                said += 1
                found.append(
                    f"the {modality} of {tested.key} (test) and {other.key} ({split}) are the same recording but for scale, "
                    f"offset or length ({100 * share:.0f} % of the shorter one)"
                )
    return found


def _candidates(
    splits: Splits, known: Mapping[SampleKey, str], contents: Mapping[SampleKey, str]
) -> Iterator[tuple[Sample, Sample, str]]:
    """Pairs that share a hash: a sample of the test split, one of another split, and that split."""
    tested: dict[str, list[Sample]] = defaultdict(list)
    for sample in splits.samples.get("test", ()):
        for piece in _hashes(known.get(sample.key, "")):
            tested[piece].append(sample)
    for split, members in splits.samples.items():
        for sample in members if split != "test" else ():
            pieces = _hashes(known.get(sample.key, ""))
            rare = [tested[piece] for piece in pieces if piece in tested and len(tested[piece]) <= SHARED]
            alike = {each.key: each for group in rare for each in group}
            for key, each in alike.items():
                if contents.get(key, "") != contents.get(sample.key):
                    yield each, sample, split


def _hashes(text: str) -> set[str]:
    return {text[start : start + DIGITS] for start in range(0, len(text), DIGITS)}


def channels_of(values: ArrayLike, groups: int = GROUPS) -> NDArray[np.float64]:
    """(T, C) values, C at most `groups`; without rows if any is not finite, since there is nothing to compare."""
    flat = np.asarray(values)
    flat = flat.reshape(len(flat), -1)
    if flat.shape[1] > groups:
        starts, sizes = _groups(flat.shape[1], groups)
        if flat.dtype == np.uint8 and flat.shape[1] % groups == 0:  # pixels: the same sums, in a quarter of the time
            flat = flat.reshape(len(flat), groups, -1).sum(axis=2, dtype=np.uint32) / sizes
        else:
            flat = np.add.reduceat(flat, starts, axis=1, dtype=np.float64) / sizes
    flat = flat.astype(np.float64)
    return flat if np.isfinite(flat).all() else flat[:0]


@cache
def _groups(channels: int, groups: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Start and size of each group of neighbouring channels."""
    edges = np.linspace(0, channels, groups + 1).astype(int)
    return edges[:-1], np.diff(edges)


def _pieces(x: NDArray[np.float64]) -> dict[str, int]:
    """Hash → start of each characteristic piece."""
    if len(x) < max(PIECE, 2 * REACH + 2):
        return {}
    change = (np.diff(x, axis=0) ** 2).sum(axis=1)
    inner = change[REACH : len(change) - REACH]
    most = inner
    for shift in range(2 * REACH + 1):
        most = np.maximum(most, change[shift : shift + len(inner)])
    starts = ((most == inner) & (inner > 0)).nonzero()[0] + REACH
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
    """The share of the shorter recording that is the other one but for a factor and offsets; 0 if it is not half of it.

    Args:
        one: (T, …) values.
        two: (T', …) values with the same channels.
    """
    x, y = channels_of(one), channels_of(two)
    if x.shape[1:] != y.shape[1:]:
        return 0.0
    starts, others = _pieces(x), _pieces(y)
    shifts = Counter(starts[piece] - others[piece] for piece in starts.keys() & others.keys())
    shorter = min(len(x), len(y))
    for shift, _ in shifts.most_common(3):
        first, last = max(0, shift), min(len(x), len(y) + shift)
        here, there = x[first:last], y[first - shift : last - shift]
        if len(here) >= max(PIECE, OVERLAP * shorter) and _same(here, there) and is_recorded(here):
            return (last - first) / shorter
    return 0.0


def _same(x: NDArray[np.float64], y: NDArray[np.float64]) -> bool:
    """True if one is the other times a factor, plus an offset for each channel."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    return bool((x * y).sum() ** 2 >= (1 - TOLERANCE) * (x * x).sum() * (y * y).sum() > 0)


def is_recorded(x: NDArray[np.float64]) -> bool:
    """True if a part of the signal cannot be predicted linearly from the samples before, as the noise of a sensor."""
    order = min(ORDER, len(x) // 3)
    x = x - x.mean(axis=0)
    rest = 0.0
    for channel in x.T:
        before = np.column_stack([sliding_window_view(channel, order)[:-1], np.ones(len(channel) - order)])
        rest += float(((channel[order:] - before @ np.linalg.lstsq(before, channel[order:], rcond=None)[0]) ** 2).sum())
    return rest > NOISE * float((x[order:] ** 2).sum())
