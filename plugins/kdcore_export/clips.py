"""Recordings for comparing an exported file with PyTorch, for calibration and for evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kdcore import DataError, KdcoreError, Predictor, Recordings, Signal, UsageError, read_recording
from kdcore_export.graph import dtype, students_of

Piece = dict[str, np.ndarray]
"""Values by modality, (1, T, …), with axes as recorded."""

Samples = Mapping[str, int | None]
"""Number of samples of a recording by modality; None for any number."""

CALIBRATION, GENERATED = 200, 16


@dataclass
class Clips:
    """Recordings, or windows if the student was trained on windows.

    Args:
        what: Description of the recordings.
        signals: Evenly sampled signals by modality.
        pieces: The same as arrays.
        labels: Label of each recording; None if unknown.
        split: Split of the run that they belong to; empty for others.
        too_short: Number of recordings that have fewer samples than the exported file reads; they are not included.
    """

    what: str
    signals: list[dict[str, Signal]] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    labels: list[int | tuple[float, ...] | None] = field(default_factory=list)
    split: str = ""
    too_short: int = 0


@dataclass(frozen=True)
class Given:
    """Recordings given by the user, and how to read them.

    Args:
        files: The files, as ``modality=file`` if the student reads several modalities.
        dataset: Dataset whose file format to use.
        rate: Sampling rate of plain arrays and tables in Hz.
        units: Unit of plain arrays and tables.
        decimal: Decimal mark of plain tables of text.
    """

    files: Sequence[str | Path] = ()
    dataset: str = ""
    rate: float | None = None
    units: str = ""
    decimal: str = "."

    def refuse_unused(self) -> None:
        """Refuse settings for reading files if there are no files.

        Raises:
            UsageError: The message names the option.
        """
        set_here = {
            "dataset": self.dataset != "",
            "rate": self.rate is not None,
            "units": self.units != "",
            "decimal": self.decimal != ".",
        }
        unused = [option for option, is_set in set_here.items() if is_set and not self.files]
        if unused:
            raise UsageError(f"--{unused[0]} requires --check")


def gather(
    predictor: Predictor,
    run: Recordings | None,
    samples: Samples,
    given: Given = Given(),
) -> Clips:
    """Return recordings for a comparison: the given files, or else the test split of the run, or else generated signals.

    Args:
        predictor: The student.
        run: Run of the student, if its recordings are available.
        samples: Number of samples per recording of the exported file.
        given: Recordings given by the user.

    Raises:
        DataError: If a given file cannot be read, or no recording has enough samples.
    """
    if given.files:
        found = _given(predictor, given, samples)
    elif run is not None:
        found = of_split(predictor, run, "test", samples)
    else:
        found = _cut(predictor, "generated signals", _generated(predictor, samples), samples)
    if not found.pieces:
        raise DataError(f"none of the {found.what} has at least {', '.join(str(each) for each in samples.values())} samples")
    return found


def of_split(predictor: Predictor, run: Recordings, split: str, samples: Samples) -> Clips:
    """Return the samples of a split of the run, cut into windows as in the run."""
    found = Clips(f"{split} {'recordings' if run.window is None else 'windows'} of its run", split=split)
    for piece in run.pieces(split, predictor.modalities):
        _add(found, predictor, piece.signals, piece.label, samples)
    return found


def calibration_pieces(predictor: Predictor, run: Recordings | None, samples: Samples, others: Clips) -> list[Piece]:
    """Return recordings for calibrating activation ranges: from the run's training split, or else `others`."""
    pieces = of_split(predictor, run, "train", samples).pieces if run is not None else []
    pieces = pieces or others.pieces
    return pieces[:: max(1, -(-len(pieces) // CALIBRATION))]  # evenly spaced, since they are sorted by class or subject


def values_of(predictor: Predictor, signals: Mapping[str, Signal]) -> Piece:
    """Return signals as inputs of the exported file."""
    recorded = {name: each.description.get("recorded", {}) for each in students_of(predictor).values() for name in each.reads}
    return {
        name: np.ascontiguousarray(signals[name].values[None]).astype(dtype(recorded[name].get(name, {})))
        for name in predictor.modalities
    }


def _cut(predictor: Predictor, what: str, recordings: Iterable[dict[str, Signal]], samples: Samples) -> Clips:
    found = Clips(what)
    for signals in recordings:
        for piece in predictor.pieces(signals):
            _add(found, predictor, piece, None, samples)
    return found


def _add(
    clips: Clips, predictor: Predictor, piece: Mapping[str, Signal], label: int | tuple[float, ...] | None, samples: Samples
) -> None:
    """Add a recording on an even clock, as the exported file assumes, or count it if it has too few samples."""
    if any(len(signal) < (samples[name] or 1) for name, signal in piece.items()):
        clips.too_short += 1
    else:
        even = {name: Signal(signal.values[: samples[name]], signal.rate) for name, signal in piece.items()}
        clips.signals.append(even)
        clips.pieces.append(values_of(predictor, even))
        clips.labels.append(label)


def _given(predictor: Predictor, given: Given, samples: Samples) -> Clips:
    def read(file: str | Path, name: str) -> Signal:
        return read_recording(predictor, file, name, given.dataset, given.rate, given.units, given.decimal)

    if len(predictor.reads) == 1:
        name = predictor.modalities[0]
        what = "windows of the given recordings" if predictor.window else "given recordings"
        return _cut(predictor, what, [{name: read(file, name)} for file in given.files], samples)
    named = dict(str(file).split("=", 1) for file in given.files if "=" in str(file))
    missing = [name for name in predictor.modalities if name not in named]
    if missing:
        raise DataError(f"give --check once for each modality, as modality=file (missing: {', '.join(missing)})")
    signals = {name: read(named[name], name) for name in predictor.modalities}
    return _cut(predictor, "given recording", [signals], samples)


def _generated(predictor: Predictor, samples: Samples) -> Iterable[dict[str, Signal]]:
    """Return random walks with the typical length and scale of recordings, if no recordings are available."""
    students = students_of(predictor).values()
    recorded = {name: each for student in students for name, each in student.description.get("recorded", {}).items()}
    missing = [name for name in predictor.modalities if name not in recorded]
    if missing:
        raise DataError(f"the shape of {', '.join(missing)} recordings is unknown: pass some with --check FILE")
    rng = np.random.default_rng(0)

    def walk(name: str, stretch: float) -> Signal:
        shape, rate = recorded[name]["shape"], float(recorded[name]["rate"])
        length = samples[name] or round((predictor.window or (stretch * shape[0] / rate,))[0] * rate)
        values = rng.normal(size=(max(2, length), *shape[1:])).cumsum(axis=0)
        if recorded[name]["dtype"] == "uint8":
            return Signal(rng.integers(0, 256, values.shape).astype(np.uint8), rate)
        return Signal(values.astype(np.float32), rate)

    return [{name: walk(name, rng.uniform(0.7, 1.4)) for name in predictor.modalities} for _ in range(GENERATED)]


def run_of(folder: Path) -> Recordings | None:
    """Return the run that contains a student's folder, if its recordings are still available."""
    run = next((each for each in folder.absolute().parents if (each / "recipe.yaml").exists()), None)
    try:
        return Recordings(run) if run else None
    except KdcoreError:
        return None
