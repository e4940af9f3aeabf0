"""Recordings made ready for a column: read, cut into windows, transformed, and identified by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kdcore.contracts.dataset import Dataset, Sample
from kdcore.contracts.modality import Modality, Signal
from kdcore.data.branch import Branch
from kdcore.data.near_copies import sketch
from kdcore.data.outlines import outline
from kdcore.data.signal_checks import largest_gap, measured_rate
from kdcore.data.windows import Cutting, WindowError, cut, timed
from kdcore.errors import DataError

SHORTEST = 8
"""Fewest samples in time for which equal recordings are taken for copies."""


@dataclass(frozen=True)
class Recording:
    """A recording after one branch's transforms.

    Args:
        pieces: Its windows, or the whole recording, in the modality's layout; empty if it is bad.
        bad: Reason why it cannot be used; empty if it can.
        content: Hash of the recorded values, see `content_hash`.
        sketch: Hashes that near copies share, see `near_copies.sketch`.
        outline: Low-frequency components, see `outlines.outline`.
        rate: Sampling rate in Hz derived from its clock; 0 if it is bad.
        gap: Longest time between two samples over the median one.
    """

    pieces: Sequence[np.ndarray] = ()
    bad: str = ""
    content: str = ""
    sketch: str = ""
    outline: str = ""
    rate: float = 0.0
    gap: float = 1.0


@dataclass(frozen=True)
class Reader:
    """Reads and transforms samples. Each signal is read once for all branches and windows.

    Args:
        dataset: The dataset.
        branches: Modalities to read, with their transforms.
        cutting: Windows to cut; None for whole recordings.
    """

    dataset: Dataset
    branches: Sequence[Branch]
    cutting: Cutting | None

    @cached_property
    def _specs(self) -> Sequence[Modality]:
        return [branch.prepared for branch in self.branches]

    def prepare(self, sample: Sample, wanted: Sequence[int]) -> list[Recording]:
        """Prepare a sample.

        Returns:
            One recording for each of them.

        Raises:
            WindowError: If the recipe's windows fit no recording.
        """
        signals: dict[str, Signal] = {}
        return [self._recording(sample, self.branches[index], self._specs[index], signals) for index in wanted]

    def _recording(self, sample: Sample, branch: Branch, spec: Modality, signals: dict[str, Signal]) -> Recording:
        name = branch.modality.name
        try:
            if name not in signals:
                signals[name] = self.dataset.read(sample, name)
            if not (np.isfinite(signals[name].rate) and signals[name].rate > 0):
                raise DataError(f"the {name} signal has {signals[name].rate:g} samples per second; it must have more than 0")
            pieces = list(self._pieces(sample, branch, spec, signals))
        except WindowError:
            raise
        except (DataError, ValueError) as error:
            return Recording(bad=str(error))
        signal, rate, gap = signals[name], measured_rate(signals[name]), largest_gap(signals[name])
        if not (content := content_hash(signal)):
            return Recording(pieces, rate=rate, gap=gap)
        return Recording(pieces, content=content, sketch=sketch(signal), outline=outline(signal), rate=rate, gap=gap)

    def _pieces(self, sample: Sample, branch: Branch, spec: Modality, signals: dict[str, Signal]) -> Iterator[np.ndarray]:
        """The sample's windows in turn, or the whole of it."""
        signal = signals[branch.modality.name]
        if self.cutting is None:
            yield as_array(signal, branch, spec)
            return
        for modality in self.cutting.modalities:
            if modality in sample.sources and modality not in signals:
                signals[modality] = self.dataset.read(sample, modality)
        signal = timed(signal)
        known: Mapping[str, Signal] = {**signals, branch.modality.name: signal}
        for span in self.cutting.spans(self.dataset, sample, known):
            yield as_array(cut(signal, span), branch, spec)


def content_hash(signal: Signal) -> str:
    """Hash of a recording's values; empty for one that is constant or so short that equal ones may be chance."""
    values = np.ascontiguousarray(signal.values)
    if len(values) < SHORTEST or (values == values[:1]).all():
        return ""
    digest = hashlib.sha256(f"{values.dtype}{values.shape}".encode())
    digest.update(values.data if values.dtype.kind in "biufc" else values.tobytes())
    return digest.hexdigest()[:32]


def as_array(signal: Signal, branch: Branch, spec: Modality | None = None) -> np.ndarray:
    """Apply the per-sample transforms to a signal; returns an array in the modality's layout.

    Args:
        signal: The recorded signal.
        branch: Its transforms.
        spec: `branch.prepared`, if already computed.

    Raises:
        ValueError: If the signal is empty or not finite, or a transform refuses it.
    """
    if not len(signal):
        raise ValueError(f"the {branch.modality.name} signal is empty")
    recorded = signal.values
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is refused below, in words
        for transform in branch.on_samples:
            signal = transform(signal)
    values = signal.values
    spec = spec or branch.prepared
    if values.ndim != len(spec.axes):
        raise ValueError(f"a {spec.name} has axes {spec.axes}, this one has shape {values.shape}")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(f"the {branch.modality.name} signal has values that are not finite{_first_of_them(recorded)}")
    values = values.transpose([spec.axes.index(axis) for axis in spec.layout])
    return _in_single_precision(values, branch.modality.name) if values.dtype == np.float64 else values


def _in_single_precision(values: np.ndarray, modality: str) -> np.ndarray:
    """`values` in float32.

    Raises:
        ValueError: If they vary so little about a large offset that rounding takes more than a tenth of their deviation.
    """
    single = values.astype(np.float32)
    deviation, peak = float(np.ptp(values)), float(np.abs(values).max())
    if np.spacing(np.float32(peak)) > 0.01 * deviation > 1e-12 * peak and (single - values).std() > 0.1 * values.std():
        raise ValueError(
            f"the {modality} signal varies by {deviation:.3g} about {values.mean():.6g}, less than float32 can tell apart; "
            "subtract that offset from the recordings"
        )
    return single


def _first_of_them(recorded: np.ndarray) -> str:
    """The place of the first value that is not finite, if the recording has it and no transform made it."""
    bad = ~np.isfinite(recorded).reshape(len(recorded), -1).all(axis=1)
    return f", the first at sample {int(bad.argmax())}" if bad.any() else ""
