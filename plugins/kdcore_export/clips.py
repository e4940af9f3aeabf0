"""The recordings on which an exported student's answers are compared with PyTorch's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kdcore import DataError, KdcoreError, Predictor, Recordings, Signal, read_recording
from kdcore_export.graph import dtype, students_of

Piece = dict[str, np.ndarray]
"""Modality → values (1, T, …), axes as recorded."""

CALIBRATION, GENERATED = 200, 16


@dataclass
class Clips:
    """Pieces of recordings: windows where a student was trained on windows, else whole ones.

    Args:
        what: What they are, in words.
        pieces: To compare answers on.
        signals: The same as evenly sampled signals.
        labels: Of each piece, where known.
        calibration: To measure the ranges of activations on; never from the test part.
    """

    what: str
    pieces: list[Piece] = field(default_factory=list)
    signals: list[dict[str, Signal]] = field(default_factory=list)
    labels: list[int | None] = field(default_factory=list)
    calibration: list[Piece] = field(default_factory=list)


def gather(
    predictor: Predictor,
    folder: Path,
    files: Sequence[Path],
    dataset: str = "",
    rate: float | None = None,
    samples: Mapping[str, int | None] | None = None,
    calibrate: bool = False,
) -> Clips:
    """The given files; else the test part of the run that `folder` belongs to; else generated signals.

    Raises:
        DataError: If a given file cannot be read or no piece has enough samples.
    """
    samples = samples or dict.fromkeys(predictor.modalities)
    run = next((each for each in folder.absolute().parents if (each / "recipe.yaml").exists()), None)
    recordings = _recordings_of(run) if run else None
    clips = (
        _given(predictor, files, dataset, rate) if files else _tested(predictor, recordings) or _generated(predictor, samples)
    )
    found = Clips(clips[0])
    for signals, label in clips[1]:
        for piece in _even(predictor, signals, samples):
            found.signals.append(piece)
            found.pieces.append(values_of(predictor, piece))
            found.labels.append(label)
    if not found.pieces:
        raise DataError(f"none of the {found.what} has {', '.join(str(each) for each in samples.values())} samples")
    if calibrate:
        train = recordings.clips("train", predictor.modalities) if recordings else ()
        learnt = [values_of(predictor, piece) for signals, _ in train for piece in _even(predictor, signals, samples)]
        found.calibration = _spread(learnt, CALIBRATION) or found.pieces
    return found


def values_of(predictor: Predictor, signals: Mapping[str, Signal]) -> Piece:
    """A piece as the graph reads it."""
    told = {name: each.description.get("recorded", {}) for each in students_of(predictor).values() for name in each.reads}
    return {
        name: np.ascontiguousarray(signals[name].values[None]).astype(dtype(told[name].get(name, {})))
        for name in predictor.modalities
    }


Labelled = tuple[str, Iterable[tuple[dict[str, Signal], int | None]]]


def _recordings_of(run: Path) -> Recordings | None:
    try:
        return Recordings(run)
    except KdcoreError:  # the data may be elsewhere by now; there are other clips
        return None


def _given(predictor: Predictor, files: Sequence[Path], dataset: str, rate: float | None) -> Labelled:
    if len(predictor.reads) == 1:
        return f"{len(files)} given recordings", [
            ({predictor.modalities[0]: read_recording(predictor, file, "", dataset, rate)}, None) for file in files
        ]
    named = dict(str(file).split("=", 1) for file in files if "=" in str(file))
    missing = [name for name in predictor.modalities if name not in named]
    if missing:
        raise DataError(f"give --check once for each modality, as modality=file (missing: {', '.join(missing)})")
    signals = {name: read_recording(predictor, Path(named[name]), name, dataset, rate) for name in predictor.modalities}
    return "given recording", [(signals, None)]


def _tested(predictor: Predictor, recordings: Recordings | None) -> Labelled | None:
    if recordings is None:
        return None
    return "test recordings of its run", recordings.clips("test", predictor.modalities)


def _generated(predictor: Predictor, samples: Mapping[str, int | None]) -> Labelled:
    """Random walks about as long and as large as recordings, where no recording is at hand."""
    told = {name: recorded for student in students_of(predictor).values() for name, recorded in _recorded(student)}
    missing = [name for name in predictor.modalities if name not in told]
    if missing:
        raise DataError(f"it is not known how recordings of {', '.join(missing)} look: give some with --check FILE")
    rng = np.random.default_rng(0)

    def walk(name: str, stretch: float) -> Signal:
        shape, rate = told[name]["shape"], float(told[name]["rate"])
        length = samples[name] or round((predictor.window or (stretch * shape[0] / rate,))[0] * rate)
        values = rng.normal(size=(max(2, length), *shape[1:])).cumsum(axis=0)
        if told[name]["dtype"] == "uint8":
            return Signal(rng.integers(0, 256, values.shape).astype(np.uint8), rate)
        return Signal(values.astype(np.float32), rate)

    clips = [({name: walk(name, rng.uniform(0.7, 1.4)) for name in predictor.modalities}, None) for _ in range(GENERATED)]
    return "generated signals", clips


def _recorded(student):
    return student.description.get("recorded", {}).items()


def _even(
    predictor: Predictor, signals: Mapping[str, Signal], samples: Mapping[str, int | None]
) -> Iterable[dict[str, Signal]]:
    """Pieces on even clocks, which is all that a graph can know; of a recording too short for `samples`, none."""
    for piece in predictor.pieces(signals):
        if all(len(signal) >= (samples[name] or 1) for name, signal in piece.items()):
            yield {name: Signal(signal.values[: samples[name]], signal.rate) for name, signal in piece.items()}


def _spread(items: list[Piece], count: int) -> list[Piece]:
    """At most `count`, evenly spread: recordings come sorted by class or subject."""
    return items[:: max(1, -(-len(items) // count))]
