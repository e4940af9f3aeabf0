"""Prediction for raw recordings: the interface of saved students, ensembles and exported models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from kdcore.contracts.modality import Modality, Signal
from kdcore.contracts.target import Target, read_target
from kdcore.data.arrays import as_numpy
from kdcore.data.signal_checks import COARSE, INTERRUPTED, largest_gap
from kdcore.data.windows import Span, cut, timed, windows
from kdcore.deploy.recordings import as_signal, fitting, read_recording
from kdcore.errors import DataError
from kdcore.user_warnings import counted, warn

Rate = float | Mapping[str, float] | None
"""Samples per second of every modality, or by name."""


class Predictor(ABC):
    """Predicts raw recordings: class probabilities, label probabilities or values in their units, depending on its target.

    Attributes:
        description: Classes, inputs, preprocessing and versions, as in ``student.json``.
    """

    description: Mapping[str, Any]

    @property
    @abstractmethod
    def reads(self) -> dict[str, Modality]:
        """Modalities it reads, by name, in order."""

    @abstractmethod
    def logits(self, pieces: Sequence[Mapping[str, Signal]]) -> np.ndarray:
        """Logits (pieces, classes) of recordings or windows of them, given as modality → signal.

        Raises:
            DataError: If one is unfit.
        """

    @property
    def classes(self) -> list[str]:
        """Names of the classes, labels or values, in the order of the outputs."""
        return list(self.description["classes"])

    @cached_property
    def target(self) -> Target:
        """The form of its outputs: class probabilities, probabilities of labels, or values with their units."""
        return read_target(self.description.get("target"))

    @property
    def modalities(self) -> list[str]:
        """Names of the modalities it reads, in order."""
        return list(self.reads)

    @property
    def window(self) -> tuple[float, float] | None:
        """Length and hop in seconds of the windows it was trained on; None for whole recordings."""
        window = self.description.get("window")
        return (window["length"], window["hop"] or window["length"]) if window else None

    def recorded(self, name: str) -> Mapping[str, Any]:
        """Shape, dtype and rate of the recordings of a modality in its training, as far as they are known."""
        return self.description.get("recorded", {}).get(name, {})

    def predict(self, recordings: Any, window: tuple[float, float] | None = None, *, rate: Rate = None) -> Any:
        """Predict one recording or a batch of recordings.

        A recording is an array or tensor (with the modality's axes, time first), a `Signal`, a pair ``(array, rate)``, a data
        frame (columns are selected by name) or the path of a file. A student of several modalities takes a dictionary of
        these. A list, or an array with one more axis, is a batch.

        Args:
            recordings: One recording, or a list of them; or modality → recording or list.
            window: Length and hop in seconds; those of the training by default.
            rate: Sampling rate of arrays in Hz, for all modalities or by name; by default that of the modality, if it has
                one (see ``print(student)``).

        Returns:
            For one recording, probabilities (windows, classes), with one row if there are no windows. For a batch of B,
            (B, classes); with windows, a list of B arrays (windows, classes). For the target ``labels``, these are independent
            probabilities; for ``values``, values in their units (see `target`).

        Raises:
            DataError: If a recording is invalid, or a modality or rate is missing.

        Example:
            >>> import numpy as np
            >>> clip = np.zeros((150, 3), dtype=np.float32)  # 3 s of an accelerometer at 50 Hz
            >>> student.predict(clip).shape
            (1, 3)
            >>> student.predict([clip, clip[:90]]).shape
            (2, 3)
            >>> student.predict({"accelerometer": clip}, window=(1.0, 0.5), rate=50.0).shape
            (5, 3)
        """
        is_batch, pieces = self._pieces_of_each(recordings, window, rate)
        if not pieces:
            raise DataError("an empty list holds no recording")
        outputs = self.probabilities(list(chain.from_iterable(pieces)))
        if not is_batch or (window or self.window) is None:
            return outputs
        return np.split(outputs, np.cumsum(list(map(len, pieces)))[:-1])

    def probabilities(self, pieces: Sequence[Mapping[str, Signal]]) -> np.ndarray:
        """Answers (pieces, classes) to recordings or windows of them, given as modality → signal; see `predict`.

        Raises:
            DataError: If one is unfit, or the output is not finite.
        """
        outputs = outputs_of(self.logits(pieces), self.target)
        if not np.isfinite(outputs).all():
            raise DataError("the student's output is not finite; check the unit of the recording's values")
        return outputs

    def signals(self, recording: Any, rate: Rate = None) -> dict[str, Signal]:
        """One recording in any of the forms that `predict` takes, as checked signals by modality.

        Raises:
            DataError: If it is unfit, or a modality or rate is missing.
        """
        if not isinstance(recording, Mapping):
            if len(self.reads) > 1:
                raise DataError(f"the student reads {', '.join(self.reads)}: give a dictionary with a recording of each")
            recording = dict.fromkeys(self.reads, recording)
        signals = {}
        for name, modality in self.reads.items():
            if name not in recording:
                raise DataError(f"the student needs {name}; given: {', '.join(map(str, recording)) or 'nothing'}")
            values = recording[name]
            own = rate.get(name) if isinstance(rate, Mapping) else rate
            if isinstance(values, str | Path):
                signal = read_recording(self, values, name, rate=own)
            else:
                shape = self.recorded(name).get("shape")
                signal = as_signal(values, modality, own, shape[-1] if shape else 0)
            signals[name] = fitting(self, name, signal)
        return signals

    def rate_read(self, name: str) -> float | None:
        """Samples per second that recordings of a modality must have; None if they are resampled, or have no rate of their own.

        Args:
            name: Of the modality.
        """
        return None

    def spans(self, signals: Mapping[str, Signal], window: tuple[float, float] | None = None) -> list[Span | None]:
        """Windows of a recording in seconds, or ``[None]`` for all of it.

        Args:
            signals: Modality → recording.
            window: Length and hop in seconds, in place of those it was trained on.

        Raises:
            DataError: If the recording is empty or shorter than a window.
        """
        window = window or self.window
        if not window:
            return [None]
        try:
            spans = windows([signals[name] for name in self.modalities], *window)
        except ValueError as error:
            raise DataError(str(error)) from error
        if not spans:
            raise DataError(f"the recording is shorter than a window of {window[0]:g} s")
        return list(spans)

    def pieces(self, signals: Mapping[str, Signal], window: tuple[float, float] | None = None) -> list[dict[str, Signal]]:
        """The windows of a recording, or all of it as the only piece.

        Raises:
            DataError: As `spans`.
        """
        for name in self.modalities:
            gap = largest_gap(signals[name])
            if gap == np.inf:
                warn(f"{name}: the recording has {COARSE}", kind=f"{name} coarse")
            elif gap > INTERRUPTED:
                longest = float(np.diff(signals[name].clock).max())
                warn(
                    f"{name}: the recording is interrupted for {longest:.3g} s, more than {INTERRUPTED} samples; "
                    "resampling draws a straight line over the gap, so cut the recording there",
                    kind=f"{name} interrupted",
                )
        return cut_pieces({name: signals[name] for name in self.modalities}, self.spans(signals, window))

    def _pieces_of_each(
        self, recordings: Any, window: tuple[float, float] | None, rate: Rate
    ) -> tuple[bool, list[list[dict[str, Signal]]]]:
        """Return True if the argument of `predict` is a batch, and the pieces of each recording."""
        batch = self._batch(recordings)
        with counted("recordings"):
            each_recording = [recordings] if batch is None else batch
            return batch is not None, [self.pieces(self.signals(each, rate), window) for each in each_recording]

    def _batch(self, recordings: Any) -> list[Any] | None:
        """The recordings of a batch, each as `signals` takes it; None if it is one recording."""
        if isinstance(recordings, list):
            return recordings
        if isinstance(recordings, Mapping):
            batches = {name: self._several(name, each) for name, each in recordings.items() if name in self.reads}
            counts = {name: None if each is None else len(each) for name, each in batches.items()}
            if set(counts.values()) <= {None}:
                return None
            if len(set(counts.values())) > 1:
                given = ", ".join(f"{name} {'one' if count is None else count}" for name, count in counts.items())
                raise DataError(f"all modalities of a batch need the same number of recordings ({given})")
            return [dict(zip(batches, each, strict=True)) for each in zip(*batches.values(), strict=True)]  # type: ignore[arg-type]
        return self._several(self.modalities[0], recordings) if len(self.reads) == 1 else None

    def _several(self, name: str, values: Any) -> list[Any] | None:
        if isinstance(values, list):
            return values
        if hasattr(values, "columns") or not hasattr(values, "ndim"):
            return None
        return list(as_numpy(values)) if values.ndim == len(self.reads[name].axes) + 1 else None


def cut_pieces(signals: Mapping[str, Signal], spans: Sequence[Span | None]) -> list[dict[str, Signal]]:
    """The parts of a recording within `spans`; all of it for None."""
    if len(spans) > 1:
        signals = {name: timed(signal) for name, signal in signals.items()}
    return [{name: cut(signal, span) if span else signal for name, signal in signals.items()} for span in spans]


def outputs_of(logits: np.ndarray, target: Target) -> np.ndarray:
    """Turn logits into predictions (N, classes), as float32, computed in double precision."""
    if target.is_classes:
        return softmax(logits)
    if target.kind == "values":
        return target.in_units(logits.astype(np.float64)).astype(np.float32)
    from scipy.special import expit

    return expit(logits.astype(np.float64)).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (N, classes) as float32, computed in double precision."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return (shifted / shifted.sum(axis=-1, keepdims=True)).astype(np.float32)
