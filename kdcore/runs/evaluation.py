"""Evaluates the saved students of a finished run again, on the run's own samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from kdcore.contracts.dataset import Dataset, Sample
from kdcore.contracts.modality import Signal
from kdcore.contracts.target import known
from kdcore.data.splits import load_splits
from kdcore.data.windows import Span, windows
from kdcore.deploy.predictor import cut_pieces
from kdcore.deploy.saved_student import DESCRIPTION, load_student
from kdcore.errors import CheckpointError, DataError
from kdcore.plugin.manager import plugin_manager
from kdcore.recipe.build import Builder
from kdcore.recipe.plan import DISTILLED
from kdcore.runs.find_student import saved_seeds
from kdcore.runs.metrics import combine
from kdcore.runs.outcome import Outcome
from kdcore.runs.paths import find_run
from kdcore.runs.records import Facts, read_run, recipe_of
from kdcore.runs.target_metrics import evaluate_target

Key = TypeVar("Key")
CLOSE = 1e-3
"""Tolerated difference from the run's recorded predictions: in probabilities, or in standard deviations of values."""


class Piece(NamedTuple):
    """One sample of a run: a recording, or a window of one.

    Args:
        key: The sample's key as text, as in the run's results.
        signals: Modality → signal.
        label: Class index, or the numbers of other targets; None if unknown.
    """

    key: str
    signals: dict[str, Signal]
    label: int | tuple[float, ...] | None


class Recordings:
    """The samples of a run, by split.

    Args:
        run: Id, folder or recipe's name of the run.

    Raises:
        KdcoreError: If there is no such run, or its recordings are not where they were.
    """

    def __init__(self, run: str | Path):
        self.folder = find_run(str(run))
        plugins = plugin_manager()
        recipe = recipe_of(self.folder, plugins, part="data")  # losses and schedules are not needed any more
        builder = Builder(recipe, plugins)
        self.dataset: Dataset = builder.dataset()
        self.skip_bad = recipe.data.on_bad_sample == "skip"
        self.window = recipe.data.window
        self.modalities = recipe.modalities
        with builder.locating_data_errors():
            self.splits = load_splits(self.dataset, builder.protocol(), recipe.data, recipe.required_modalities).splits

    def pieces(self, split: str, modalities: Sequence[str]) -> Iterator[Piece]:
        """Yield the samples of a split, cut into the same windows as in the run.

        Windows lie within the time that *all* of the run's modalities cover, including the teachers'. So all modalities are
        read, not only `modalities`.

        Args:
            split: Name of the split, such as ``test``.
            modalities: Modalities to return.

        Raises:
            DataError: If a recording cannot be read, unless the run's recipe skips bad samples.
        """
        for sample in self.splits.samples.get(split, ()):
            try:
                signals, spans = self._read(sample, modalities)
            except DataError:
                if not self.skip_bad:
                    raise
                continue
            for number, piece in enumerate(cut_pieces(signals, spans)):
                label = sample.label if sample.target is None else sample.target
                yield Piece(str(replace(sample.key, window=number)), piece, label)

    def _read(self, sample: Sample, modalities: Sequence[str]) -> tuple[dict[str, Signal], Sequence[Span | None]]:
        if self.window is None:
            return {name: self.dataset.read(sample, name) for name in modalities}, [None]
        signals = {name: self.dataset.read(sample, name) for name in self.modalities if name in sample.sources}
        try:
            spans = windows(list(signals.values()), self.window.length, self.window.hop or self.window.length)
        except ValueError as error:
            raise DataError(f"{sample.key}: {error}") from error
        return {name: signals[name] for name in modalities}, spans


def evaluate_run(run_id: str) -> Iterator[str]:
    """Yield one line per saved student and ensemble of a run, with its metrics and the number of samples.

    Args:
        run_id: Id or folder of a finished run, or the name of its recipe.

    Raises:
        KdcoreError: If the run is not finished, saved no student, or all of its recordings are missing.
    """
    recordings = Recordings(run_id)
    run = read_run(recordings.folder)
    for seed, folder in saved_seeds(recordings.folder).items():
        yield from _evaluate_seed(folder, recordings, run.facts, run.outcomes[DISTILLED][seed])


def _evaluate_seed(folder: Path, recordings: Recordings, facts: Facts, outcome: Outcome) -> Iterator[str]:
    """Yield the lines of a seed: differences from the run first, then the metrics of each student and ensemble."""
    students: dict[str, _Predictions] = {}
    for path in sorted(each.parent for each in folder.glob(f"*/{DESCRIPTION}")):
        students[path.name] = _predict(path, recordings, facts.split, outcome)
    for name, student in students.items():
        if lost := len(outcome.keys) - len(student.rows):
            yield f"{folder.name} {name}: {lost} of the run's {len(outcome.keys)} samples no longer exist"
    values = outcome.target.kind == "values"
    current = {row: label for student in students.values() for row, label in student.labels.items()}
    if relabelled := sum(_differ(label, outcome.labels[row], recordings, facts) for row, label in current.items()):
        what = "values" if values else "labels"
        yield f"{folder.name}: {relabelled} of {len(current)} samples have different {what} now; those of the run are used"
    for name, student in students.items():
        if (difference := _largest_difference(student, outcome, name)) > CLOSE:
            what = "values, in standard deviations," if values else "probabilities"
            yield (
                f"{folder.name} {name}: {what} differ by up to {difference:.2g} from those of the run; "
                "recordings, plugins or versions have changed since"
            )
    outputs = {name: student.outputs for name, student in students.items()}
    samples = {name: student.rows.tolist() for name, student in students.items()}
    for name, (predicted, rows) in with_ensembles(outputs, samples, outcome).items():
        yield metrics_line(f"{folder.name} {name}", outcome, predicted, outcome.labels[np.array(rows)])


def with_ensembles(
    outputs: Mapping[str, np.ndarray], samples: Mapping[str, Sequence[Key]], outcome: Outcome
) -> dict[str, tuple[np.ndarray, Sequence[Key]]]:
    """Add the outputs of the run's ensembles, for the samples that all of its students have predicted.

    Args:
        outputs: Student → its outputs, (samples, outputs).
        samples: Student → what identifies its samples, in the order of its outputs.
        outcome: Outcome of the run.

    Returns:
        Student or ensemble → its outputs, and what identifies their samples.
    """
    found = {name: (each, samples[name]) for name, each in outputs.items()}
    places = {name: {key: n for n, key in enumerate(samples[name])} for name in outcome.members if name in outputs}
    common = [key for key in next(iter(places.values()), {}) if all(key in each for each in places.values())]
    if len(places) > 1 and common:
        members = [outputs[name][[place[key] for key in common]] for name, place in places.items()]
        for label, rule in outcome.ensembles.items():
            found[label] = combine(members, rule, outcome.target.is_classes), common
    return found


def metrics_line(name: str, outcome: Outcome, outputs: np.ndarray, targets: np.ndarray) -> str:
    """Return a line with the metrics of a student or ensemble, and the number of labelled samples.

    Args:
        name: Start of the line.
        outcome: Outcome of the run, whose target and names are used.
        outputs: Probabilities or values, (samples, outputs).
        targets: Labels or values of the samples; unlabelled ones are left out.
    """
    labelled = known(targets)
    metrics = evaluate_target(outcome.target, outcome.names, outputs[labelled], targets[labelled]).metrics()
    shown = [(outcome.target.metric(metric), value) for metric, value in metrics.items()]
    texts = [f"{metric.title} {metric.text(value)} {metric.unit}".rstrip() for metric, value in shown]
    return f"{name}: {'  '.join(texts)}  n {int(labelled.sum())}"


class _Predictions(NamedTuple):
    """A student's predictions for the samples of its run that still exist.

    Args:
        outputs: (n, classes) probabilities or values.
        rows: (n,) rows of the samples in the run's results.
        labels: Row → current label in the dataset.
    """

    outputs: np.ndarray
    rows: np.ndarray
    labels: dict[int, int | tuple[float, ...] | None]


def _predict(folder: Path, recordings: Recordings, split: str, outcome: Outcome) -> _Predictions:
    student = load_student(folder, trust_code=True)  # the run's recipe names the same code
    row_of = {key: row for row, key in enumerate(outcome.keys)}
    outputs: dict[int, np.ndarray] = {}
    labels: dict[int, int | tuple[float, ...] | None] = {}
    for key, signals, label in recordings.pieces(split, student.modalities):
        if key in row_of:
            outputs[row_of[key]] = student.probabilities([signals])[0]
            labels[row_of[key]] = label
    if not outputs:
        raise CheckpointError(f"{recordings.folder.name}: none of the samples that it was evaluated on exist any more")
    rows = sorted(outputs)
    return _Predictions(np.stack([outputs[row] for row in rows]), np.array(rows), labels)


def _differ(now: int | tuple[float, ...] | None, then: np.ndarray, recordings: Recordings, facts: Facts) -> bool:
    """True if a sample's label differs from that in the run; classes are compared by name."""
    if then.ndim:
        numbers = np.full(then.shape, np.nan) if now is None else np.asarray(now)
        return not np.allclose(numbers, then, rtol=1e-6, equal_nan=True)
    return (recordings.dataset.classes[int(now)] if isinstance(now, int) else "") != (
        facts.classes[int(then)] if then >= 0 else ""
    )


def _largest_difference(student: _Predictions, outcome: Outcome, name: str) -> float:
    if name not in outcome.probabilities:
        return 0.0
    difference = np.abs(outcome.probabilities[name][student.rows] - student.outputs)
    return float((difference / np.asarray(outcome.target.std)).max() if outcome.target.std else difference.max())
