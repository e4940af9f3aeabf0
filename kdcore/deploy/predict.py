"""Predictions for raw files and for a stream of samples, and how they are written."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from kdcore.contracts.drawing import Drawing, Estimated, Labelled
from kdcore.contracts.modality import Signal
from kdcore.contracts.target import OF_CLASSES, Target, with_units
from kdcore.deploy.predictor import Predictor
from kdcore.deploy.recordings import read_recording, read_stream, recording_form
from kdcore.deploy.streaming import HALF, THRESHOLD, Smoothing, StreamingPredictor, refuse_majority, smoothed, votes
from kdcore.errors import DataError, UsageError
from kdcore.user_warnings import warnings_about

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Prediction:
    """The prediction for one recording, or for one window of it.

    Args:
        recording: File or files of the recording.
        probabilities: (classes,) class or label probabilities; values in their units for the target ``values``.
        classes: Names of the classes, labels or values, in the same order.
        start: Start of the window in seconds; None for a whole recording.
        end: End of the window in seconds.
        signals: Modality → the whole recording; None for a stream.
        target: Kind of the prediction.
        threshold: Probability from which a label counts as predicted, in total or in a window's vote.
        voted: Whether `probabilities` are fractions of windows that vote for a label; a label then needs at least a half.
    """

    recording: str
    probabilities: np.ndarray
    classes: Sequence[str]
    start: float | None = None
    end: float | None = None
    signals: Mapping[str, Signal] | None = field(default=None, repr=False, compare=False)
    target: Target = OF_CLASSES
    threshold: float = THRESHOLD
    voted: bool = False

    @property
    def label(self) -> str:
        """The likeliest class."""
        return self.classes[int(self.probabilities.argmax())]

    @property
    def labels(self) -> list[str]:
        """The labels with at least the threshold's probability, or half of the votes; the likeliest first."""
        least = HALF if self.voted else self.threshold
        order: list[int] = np.argsort(-self.probabilities, kind="stable").tolist()
        return [self.classes[index] for index in order if self.probabilities[index] >= least]

    def line(self, top: int = 3) -> str:
        """One line of text with the `top` likeliest classes; all labels that reach the threshold; or all values."""
        where = f"{self.recording}{'' if self.start is None else f' {self.start:.2f}-{self.end:.2f} s'}"
        if self.target.kind == "values":
            units = self.target.units or ("",) * len(self.classes)
            rows = zip(self.classes, self.probabilities, units, strict=True)
            return f"{where}: {'  '.join(f'{name} {value:.4g} {unit}'.strip() for name, value, unit in rows)}"
        best = np.argsort(-self.probabilities, kind="stable")
        shown = best[:top] if self.target.is_classes else [each for each in best if self.classes[each] in self.labels]
        text = "  ".join(f"{self.classes[index]} {self.probabilities[index]:.3f}" for index in shown)
        nearest = f"{self.classes[best[0]]} {self.probabilities[best[0]]:.3f}"
        none = f"no label reaches {self.threshold:g}{' in half of the windows' if self.voted else ''}"
        return f"{where}: {text or f'{none} (highest: {nearest})'}"

    def record(self) -> dict[str, Any]:
        """Everything as plain values."""
        where = {
            "recording": self.recording,
            "start": None if self.start is None else round(self.start, 6),
            "end": None if self.end is None else round(self.end, 6),
        }
        numbers = {name: float(p) for name, p in zip(self.classes, self.probabilities, strict=True)}
        if self.target.kind == "values":
            return {**where, "values": numbers, "units": dict(zip(self.classes, self.target.units, strict=False))}
        if self.target.kind == "labels":
            majority = {"majority": HALF} if self.voted else {}
            return {**where, "labels": self.labels, "threshold": self.threshold, **majority, "probabilities": numbers}
        return {
            **where,
            "label": self.label,
            "probability": float(self.probabilities.max()),
            "probabilities": numbers,
        }


def predict_files(
    student: Predictor,
    files: Sequence[str | Path],
    dataset: str = "",
    rate: float | None = None,
    window: tuple[float, float] | None = None,
    smoothing: Smoothing = Smoothing(),  # noqa: B008 - frozen
    units: str = "",
    threshold: float = THRESHOLD,
    decimal: str = ".",
) -> Iterator[Prediction]:
    """Predict every recording, or every window of it.

    Args:
        student: A saved student or ensemble.
        files: One file per recording; for a student of several modalities, ``modality=file`` for each of one recording.
        dataset: Name of the dataset that defines the file format; see `read_recording`.
        rate: Sampling rate of plain arrays and tables, in Hz.
        window: Length and hop in seconds; those of the training by default, if any.
        smoothing: Smoothing over windows.
        units: Units of plain arrays and tables; the modality's by default.
        threshold: Probability from which a label counts as predicted, for students of labels.
        decimal: Decimal mark of plain tables of text.

    Raises:
        DataError: If a file cannot be read or lacks what the student needs.
    """
    refuse_majority(student, smoothing)
    for name, given in _recordings(student, files):
        with warnings_about(name):
            signals = {key: read_recording(student, path, key, dataset, rate, units, decimal) for key, path in given.items()}
            try:
                signals = student.signals(signals)
                probabilities = np.atleast_2d(student.predict(signals, window))
                spans = student.spans(signals, window)
            except DataError as error:
                raise DataError(f"{name}: {error}") from error
        voted = votes(student.target, smoothing)
        for span, row in zip(spans, smoothed(probabilities, smoothing, student.target, threshold), strict=True):
            yield Prediction(name, row, student.classes, *(span or (None, None)), signals, student.target, threshold, voted)


def _recordings(student: Predictor, files: Sequence[str | Path]) -> Iterator[tuple[str, dict[str, Path]]]:
    if len(student.reads) == 1:
        for path in files:
            [name] = student.reads
            file = Path(str(path).removeprefix(f"{name}="))
            yield str(file), {name: file}
        return
    given = dict(str(path).split("=", 1) for path in files if "=" in str(path))
    missing = [name for name in student.modalities if name not in given]
    if missing:
        raise DataError(
            f"this student reads {', '.join(student.modalities)}: give each as modality=file (missing: {', '.join(missing)})"
        )
    yield " ".join(given.values()), {name: Path(given[name]) for name in student.modalities}


def predict_stream(
    student: Predictor,
    lines: Iterable[str],
    window: tuple[float, float] | None,
    rate: float | None = None,
    smoothing: Smoothing = Smoothing(),  # noqa: B008 - frozen
    units: str = "",
    threshold: float = THRESHOLD,
    decimal: str = ".",
) -> Iterator[Prediction]:
    """Predict a stream of table rows; yields each window's prediction as soon as the window is complete.

    Args:
        student: A saved student of one modality.
        lines: Rows of numbers, optionally after a header line, as in a plain table.
        window: Length and hop in seconds.
        rate: Sampling rate in Hz; the modality's by default.
        smoothing: Smoothing over windows.
        units: Units of the values; the modality's by default.
        threshold: Probability from which a label counts as predicted, for students of labels.
        decimal: Decimal mark.

    Raises:
        DataError: If a line is not a row of numbers, or the stream ends before the first window.
    """
    if len(student.reads) > 1:
        raise UsageError(f"standard input is one recording, but this student reads {', '.join(student.reads)}")
    if window is None:
        raise UsageError("standard input requires --window, since this student was trained on whole recordings")
    form = recording_form(student, student.modalities[0], rate, units, "--rate")
    stream = StreamingPredictor(student, form.rate, window, smoothing, threshold)
    voted, complete = votes(student.target, smoothing), False
    for block in read_stream(lines, form, decimal):
        for (start, end), probabilities in stream.push(block):
            complete = True
            yield Prediction(STANDARD_INPUT, probabilities, student.classes, start, end, None, student.target, threshold, voted)
    if not complete:
        raise DataError(f"standard input: {stream.count} samples are shorter than a window of {window[0]:g} s")


def drawings(student: Predictor, predictions: Sequence[Prediction]) -> list[Drawing]:
    """Every modality of every recording, with the predictions along its time."""
    by_recording: dict[str, list[Prediction]] = {}
    for each in predictions:
        by_recording.setdefault(each.recording, []).append(each)
    all_drawings = []
    for recording, windows in by_recording.items():
        for name, signal in (windows[0].signals or {}).items():
            drawing = Drawing(recording, name, student.reads[name], signal, kind=student.target.kind)
            if student.target.kind == "values":
                drawing = replace(drawing, estimates=[_estimated(each, signal) for each in windows])
            else:
                labelled = [labelled for each in windows for labelled in _labelled(each, signal)]
                drawing = replace(drawing, predictions=labelled)
            all_drawings.append(drawing)
    return all_drawings


def _span(prediction: Prediction, signal: Signal) -> tuple[float, float]:
    """Start and end of a prediction on the clock of its recording, in seconds."""
    start, end = prediction.start, prediction.end
    return float(signal.clock[0]) if start is None else start, float(signal.clock[-1]) if end is None else end


def _labelled(prediction: Prediction, signal: Signal) -> Iterator[Labelled]:
    """The class of a recording or window, or the labels that reach the threshold."""
    names = [prediction.label] if prediction.target.is_classes else prediction.labels
    for name in names:
        probability = float(prediction.probabilities[list(prediction.classes).index(name)])
        yield Labelled(*_span(prediction, signal), name, probability)


def _estimated(prediction: Prediction, signal: Signal) -> Estimated:
    names = with_units(prediction.classes, prediction.target)
    return Estimated(*_span(prediction, signal), dict(zip(names, prediction.probabilities.tolist(), strict=True)))


def write_predictions(predictions: Iterable[Prediction], output: Path | None, top: int = 3) -> None:
    """Print predictions, or write them to a file as they come.

    Args:
        predictions: In the order of the output.
        output: ``.csv`` or ``.json`` file; standard output, as text, by default.
        top: How many classes a line of text names.

    Raises:
        UsageError: If `output` has another ending, or cannot be written.
    """
    if output is None:
        for each in predictions:
            print(each.line(top), flush=True)
        return
    if output.suffix not in (".csv", ".json"):
        raise UsageError(f"{output}: predictions are written as .csv or .json")
    try:
        with open(output, "w", encoding="utf-8", newline="") as file:
            _write_csv(predictions, file) if output.suffix == ".csv" else _write_json(predictions, file)
    except OSError as error:
        raise UsageError(f"{output}: cannot be written: {error.strerror or error}") from error
    print(output, file=sys.stderr)


def _write_csv(predictions: Iterable[Prediction], file: IO[str]) -> None:
    writer = None
    for each in predictions:
        kind, record = each.target.kind, each.record()
        if writer is None:
            own = {"classes": ["label", "probability"], "labels": ["labels"], "values": []}[kind]
            numbers = with_units(each.classes, each.target) if kind == "values" else [f"p({name})" for name in each.classes]
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["recording", "start", "end", *own, *numbers])
        shares = record.pop("values" if kind == "values" else "probabilities").values()
        if kind == "labels":
            record["labels"] = ";".join(record["labels"])
        cells = [value for key, value in record.items() if key not in ("units", "threshold", "majority")]
        writer.writerow(["" if value is None else value for value in (*cells, *shares)])
        file.flush()


def _write_json(predictions: Iterable[Prediction], file: IO[str]) -> None:
    file.write("[")
    for number, each in enumerate(predictions):
        file.write(("," if number else "") + "\n" + json.dumps(each.record(), ensure_ascii=False))
        file.flush()
    file.write("\n]\n")
