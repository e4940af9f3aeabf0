"""Evaluates the saved students of a finished run on new recordings."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from kdcore.contracts.dataset import Dataset, Sample, SampleKey
from kdcore.contracts.modality import Signal
from kdcore.data.splits import listed_samples
from kdcore.deploy.predictor import Predictor
from kdcore.deploy.recordings import fitting, warn_of_unit
from kdcore.deploy.saved_student import DESCRIPTION, load_student
from kdcore.errors import DataError, KdcoreError, UsageError
from kdcore.plugin.manager import plugin_manager
from kdcore.recipe.build import Builder
from kdcore.recipe.load import load_recipe
from kdcore.recipe.plan import DISTILLED
from kdcore.runs.evaluation import Recordings, metrics_line, with_ensembles
from kdcore.runs.find_student import saved_seeds
from kdcore.runs.paths import find_run
from kdcore.runs.records import read_run
from kdcore.user_warnings import counted

ALLOWED = ("data.dataset.", "data.on_bad_sample=")


class _Predictions(NamedTuple):
    """Probabilities or values that a student predicts for recordings or windows.

    Args:
        outputs: (n, classes).
        targets: Sample key with its window → target, in the order of the student's classes; as `outputs` are.
    """

    outputs: np.ndarray
    targets: dict[SampleKey, int | tuple[float, ...]]


def evaluate_recordings(run_id: str, overrides: Sequence[str]) -> Iterator[str]:
    """Yield one line per saved student and ensemble of a run, with its metrics on new recordings.

    All labelled recordings of the dataset are used, except those that the run trained on or selected epochs by. A student
    trained on windows predicts windows over the time that its own modalities cover.

    Args:
        run_id: Id or folder of a finished run, or the name of its recipe.
        overrides: Overrides of the run's ``data.dataset``, such as ``data.dataset.root=new``.

    Raises:
        UsageError: If an override changes anything else.
        KdcoreError: If the run is not finished, or no recording can be used.
    """
    if wrong := next((each for each in overrides if not each.startswith(ALLOWED)), ""):
        raise UsageError(f"{wrong}: evaluate accepts overrides of data.dataset and data.on_bad_sample only")
    folder = find_run(run_id)
    plugins, distilled = plugin_manager(), read_run(folder).outcomes[DISTILLED]
    recipe = load_recipe(folder / "recipe.yaml", tuple(overrides), plugins, None, files=False, part="data")
    builder = Builder(recipe, plugins)
    with builder.locating_data_errors():
        dataset = builder.dataset()
        samples, unusable = listed_samples(dataset, recipe.data.model_copy(update={"subjects": None}))
    yield from _lines(Counter(each.reason for each in unusable))
    skip, reported = recipe.data.on_bad_sample == "skip", set[str]()
    trained, note = _trained_on(run_id, recipe.student_modalities)
    if note:
        yield note
    for seed, place in saved_seeds(folder).items():
        predictions: dict[str, _Predictions] = {}
        for path in sorted(each.parent for each in place.glob(f"*/{DESCRIPTION}")):
            student, left_out = load_student(path, trust_code=True), Counter()
            with counted("recordings"):
                predictions[path.name] = _predict(student, dataset, samples, trained, skip, left_out)
            yield from (line for line in _lines(left_out) if line not in reported)  # not again for other students and seeds
            reported |= set(_lines(left_out))
        outcome = distilled[seed]
        outputs = {name: each.outputs for name, each in predictions.items()}
        predicted = {name: list(each.targets) for name, each in predictions.items()}
        for name, (found, keys) in with_ensembles(outputs, predicted, outcome).items():
            targets = predictions[name if name in predictions else outcome.members[0]].targets
            yield metrics_line(f"{place.name} {name}", outcome, found, np.array([targets[key] for key in keys]))


def _trained_on(run_id: str, modalities: Sequence[str]) -> tuple[set[str], str]:
    """Return digests of the signals that the run trained on or selected epochs by, and a note if they are not available."""
    digests: set[str] = set()
    try:
        own = Recordings(run_id)
        for sample in (*own.splits.samples.get("train", ()), *own.splits.samples.get("validation", ())):
            digests |= {_digest(own.dataset.read(sample, name)) for name in modalities if name in sample.sources}
    except KdcoreError:
        return digests, "some recordings of the run are missing: the evaluation may include recordings that it trained on"
    return digests, ""


def _digest(signal: Signal) -> str:
    return hashlib.sha256(np.ascontiguousarray(signal.values).tobytes()).hexdigest()


def _predict(
    student: Predictor, dataset: Dataset, samples: Sequence[Sample], trained: set[str], skip: bool, left_out: Counter[str]
) -> _Predictions:
    """Run a student on all usable samples. Counts the others by reason in `left_out`."""
    outputs, targets = [], {}
    for sample in samples:
        target = _target(sample, dataset, student)
        if isinstance(target, str):
            left_out[target] += 1
            continue
        if missing := [name for name in student.modalities if name not in sample.sources]:
            left_out[f"no {' and no '.join(missing)}"] += 1
            continue
        try:
            signals = {name: dataset.read(sample, name) for name in student.modalities}
        except DataError:
            if not skip:
                raise
            left_out["damaged"] += 1
            continue
        if any(_digest(signal) in trained for signal in signals.values()):
            left_out["the run trained on the recording"] += 1
            continue
        for name, signal in signals.items():
            spec = dataset.modalities[name]
            warn_of_unit(np.asarray(signal.values), spec, f"set the unit in the dataset's options or convert to {spec.units}")
        pieces = student.pieces({name: fitting(student, name, signal) for name, signal in signals.items()})
        outputs += [student.probabilities([piece])[0] for piece in pieces]
        targets |= {replace(sample.key, window=number): target for number in range(len(pieces))}
    if not outputs:
        reasons = "; ".join(_lines(left_out))
        raise DataError(f"no recording can be evaluated{f': {reasons}' if reasons else ''}")
    return _Predictions(np.stack(outputs), targets)


def _lines(left_out: Counter[str]) -> list[str]:
    return [f"{count} left out: {reason}" for reason, count in left_out.items()]


def _target(sample: Sample, dataset: Dataset, student: Predictor) -> int | tuple[float, ...] | str:
    """Return a sample's target in the order of the student's classes, or why it has none."""
    if not student.target.is_classes:
        if list(dataset.classes) != list(student.classes):
            raise DataError(f"the student predicts {', '.join(student.classes)}, the dataset has {', '.join(dataset.classes)}")
        return "no target" if sample.target is None else tuple(sample.target)
    if sample.label is None:
        return "no label"
    name = dataset.classes[sample.label]
    if name not in student.classes:
        return f"the student does not know the class {name!r}"
    return list(student.classes).index(name)
