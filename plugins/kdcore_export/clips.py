"""Recordings on which an exported file is compared with PyTorch, calibrated and evaluated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kdcore import DataError, KdcoreError, Predictor, Recordings, Signal, read_recording
from kdcore_export.graph import dtype, students_of

Piece = dict[str, np.ndarray]
"""Modality → values (1, T, …), axes as recorded."""

Samples = Mapping[str, int | None]
"""Modality → number of samples of a recording; None for any number."""

CALIBRATION, GENERATED = 200, 16


@dataclass
class Clips:
    """Recordings, or windows of them where a student was trained on windows.

    Args:
        what: What they are, in words.
        signals: Evenly sampled, by modality.
        pieces: The same as arrays.
        labels: Of each; None where unknown.
        split: Split of the run that they are; empty for others.
    """

    what: str
    signals: list[dict[str, Signal]] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    labels: list[int | tuple[float, ...] | None] = field(default_factory=list)
    split: str = ""


def gather(
    predictor: Predictor,
    run: Recordings | None,
    samples: Samples,
    files: Sequence[str | Path] = (),
    dataset: str = "",
    rate: float | None = None,
) -> Clips:
    """Recordings to compare on: the given files, else the test split of the run, else generated signals.

    Args:
        predictor: The student.
        run: The run it belongs to, if its recordings are there.
        samples: How many samples the file's recordings have.
        files: Given ones.
        dataset: Whose format the files have.
        rate: Samples per second of plain files.

    Raises:
        DataError: If a given file cannot be read, or no recording has enough samples.
    """
    if files:
        found = _given(predictor, files, dataset, rate, samples)
    elif run is not None:
        found = of_split(predictor, run, "test", samples)
    else:
        found = _cut(predictor, "generated signals", _generated(predictor, samples), samples)
    if not found.pieces:
        raise DataError(f"none of the {found.what} has {', '.join(str(each) for each in samples.values())} samples")
    return found


def of_split(predictor: Predictor, run: Recordings, split: str, samples: Samples) -> Clips:
    """The samples of a split of the run, cut into windows as the run cut them."""
    found = Clips(f"{split} {'recordings' if run.window is None else 'windows'} of its run", split=split)
    for piece in run.pieces(split, predictor.modalities):
        _add(found, predictor, piece.signals, piece.label, samples)
    return found


def calibration_pieces(predictor: Predictor, run: Recordings | None, samples: Samples, others: Clips) -> list[Piece]:
    """Pieces to measure ranges of activations on: of the run's training split, else `others`."""
    pieces = of_split(predictor, run, "train", samples).pieces if run is not None else []
    pieces = pieces or others.pieces
    return pieces[:: max(1, -(-len(pieces) // CALIBRATION))]  # evenly spread: they come sorted by class or subject


def values_of(predictor: Predictor, signals: Mapping[str, Signal]) -> Piece:
    """Signals as the exported file reads them."""
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
    """Add a piece on an even clock, which is all that a file can know; not one with too few samples."""
    if all(len(signal) >= (samples[name] or 1) for name, signal in piece.items()):
        even = {name: Signal(signal.values[: samples[name]], signal.rate) for name, signal in piece.items()}
        clips.signals.append(even)
        clips.pieces.append(values_of(predictor, even))
        clips.labels.append(label)


def _given(predictor: Predictor, files: Sequence[str | Path], dataset: str, rate: float | None, samples: Samples) -> Clips:
    if len(predictor.reads) == 1:
        name = predictor.modalities[0]
        each = [{name: read_recording(predictor, file, name, dataset, rate)} for file in files]
        return _cut(predictor, f"{len(files)} given recordings", each, samples)
    named = dict(str(file).split("=", 1) for file in files if "=" in str(file))
    missing = [name for name in predictor.modalities if name not in named]
    if missing:
        raise DataError(f"give --check once for each modality, as modality=file (missing: {', '.join(missing)})")
    signals = {name: read_recording(predictor, named[name], name, dataset, rate) for name in predictor.modalities}
    return _cut(predictor, "given recording", [signals], samples)


def _generated(predictor: Predictor, samples: Samples) -> Iterable[dict[str, Signal]]:
    """Random walks about as long and as large as recordings, where no recording is at hand."""
    students = students_of(predictor).values()
    recorded = {name: each for student in students for name, each in student.description.get("recorded", {}).items()}
    missing = [name for name in predictor.modalities if name not in recorded]
    if missing:
        raise DataError(f"the shape of {', '.join(missing)} recordings is unknown: give some with --check FILE")
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
    """The run that a student's folder lies in, if its recordings are still where they were."""
    run = next((each for each in folder.absolute().parents if (each / "recipe.yaml").exists()), None)
    try:
        return Recordings(run) if run else None
    except KdcoreError:
        return None
