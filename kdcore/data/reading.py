"""Recordings made ready for a column: read, cut into windows, transformed, and identified by their content."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from kdcore.contracts.dataset import Dataset, Sample
from kdcore.contracts.leakage_check import LeakageCheck
from kdcore.contracts.modality import Modality, Signal
from kdcore.data.branch import Branch
from kdcore.data.leakage import summarise
from kdcore.data.signal_checks import largest_gap, measured_rate
from kdcore.data.windows import Cutting, WindowError, cut, timed, windows
from kdcore.errors import DataError


@dataclass(frozen=True)
class Recording:
    """A recording after one branch's transforms.

    Args:
        pieces: Its windows, or the whole recording, in the modality's layout; empty if it is bad.
        bad: Reason why it cannot be used; empty if it can.
        content: Hash of the recorded values, see `leakage.content_hash`.
        summaries: Summary of the recording by leakage check.
        rate: Sampling rate in Hz derived from its clock; 0 if it is bad.
        gap: Longest time between two samples divided by the median time.
    """

    pieces: Sequence[np.ndarray] = ()
    bad: str = ""
    content: str = ""
    summaries: Mapping[str, str] = field(default_factory=dict)
    rate: float = 0.0
    gap: float = 1.0


@dataclass(frozen=True)
class Reader:
    """Reads and transforms samples. Each signal is read once for all branches and windows.

    Args:
        dataset: The dataset.
        branches: Modalities to read, with their transforms.
        cutting: Windows to cut; None for whole recordings.
        checks: Leakage checks for which each recording is summarised.
    """

    dataset: Dataset
    branches: Sequence[Branch]
    cutting: Cutting | None = None
    checks: Sequence[LeakageCheck] = ()

    @cached_property
    def _specs(self) -> Sequence[Modality]:
        return [branch.prepared for branch in self.branches]

    def prepare(self, sample: Sample, wanted: Sequence[int]) -> list[Recording]:
        """Prepare a sample for the branches with the indices `wanted`, and return one recording for each.

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
        signal = signals[name]
        content, summaries = summarise(signal, self.checks)
        rate, gap = measured_rate(signal), largest_gap(signal)
        return Recording(pieces, content=content, summaries=summaries, rate=rate, gap=gap)

    def _pieces(self, sample: Sample, branch: Branch, spec: Modality, signals: dict[str, Signal]) -> Iterator[np.ndarray]:
        """Yield the windows of a recording in order, or the whole recording."""
        signal = signals[branch.modality.name]
        if self.cutting is None:
            yield as_array(signal, branch, spec)
            return
        recorded = [modality for modality in self.cutting.modalities if modality in sample.sources]
        for modality in recorded:
            if modality not in signals:
                signals[modality] = self.dataset.read(sample, modality)
        signal = timed(signal)
        for span in windows([signals[modality] for modality in recorded], self.cutting.length, self.cutting.hop):
            yield as_array(cut(signal, span), branch, spec)


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
        raise ValueError(f"the {branch.modality.name} signal has values that are not finite{_first_invalid(recorded)}")
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


def _first_invalid(recorded: np.ndarray) -> str:
    """Name the time step of the first value that is not finite; empty if only the transforms produced such values."""
    bad = ~np.isfinite(recorded).reshape(len(recorded), -1).all(axis=1)
    return f", the first at sample {int(bad.argmax())}" if bad.any() else ""
