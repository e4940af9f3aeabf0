"""Saved students at work: on raw files, and once more on the test part of their run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from kdcore.contracts.modality import Modality, Signal
from kdcore.errors import DataError, KdcoreError
from kdcore.plugin.manager import plugin_manager
from kdcore.plugin.schema import options_model
from kdcore.recipe.build import Builder
from kdcore.recipe.load import load_recipe
from kdcore.results.evaluate import evaluate
from kdcore.training.assembly import modalities_of
from kdcore.training.data import load_split
from kdcore.training.student import Student, load_student
from kdcore.workspace import find_run

GENERIC = (".npy", ".csv", ".txt")


def predict_files(
    folder: Path, files: Sequence[Path], dataset: str = "", rate: float | None = None, top: int = 3
) -> Iterator[str]:
    """A line for every recording: the likeliest classes with their probabilities.

    Args:
        folder: A saved student.
        files: One file a recording; for a student of several modalities, ``modality=file`` for each of one recording.
        dataset: Whose file format they are in; by default the one the student was trained on, or by their ending
            plain arrays (``.npy``, ``.csv``: a row per sample, in the modality's units).
        rate: Samples per second of plain arrays; the modality's by default.
        top: How many classes a line names.

    Raises:
        DataError: If a file cannot be read or lacks what the student needs.
    """
    student = load_student(folder)
    for name, signals in _recordings(student, files, dataset, rate):
        for number, probabilities in enumerate(student.predict(signals)):
            best = np.argsort(-probabilities)[:top]
            shown = "  ".join(f"{student.classes[index]} {probabilities[index]:.3f}" for index in best)
            window = f" [window {number}]" if student.description.get("window") else ""
            yield f"{name}{window}: {shown}"


def _recordings(
    student: Student, files: Sequence[Path], dataset: str, rate: float | None
) -> Iterator[tuple[str, dict[str, Signal]]]:
    if len(student.branches) == 1:
        modality = student.branches[0].modality
        for path in files:
            yield (
                str(path),
                {
                    modality.name: read_signal(
                        Path(str(path).removeprefix(f"{modality.name}=")), modality, dataset or _own(student), rate
                    )
                },
            )
        return
    given = dict(str(path).split("=", 1) for path in files if "=" in str(path))
    missing = [name for name in student.modalities if name not in given]
    if missing:
        raise DataError(
            f"this student reads {', '.join(student.modalities)}: give each as modality=file (missing: {', '.join(missing)})"
        )
    modalities = {branch.modality.name: branch.modality for branch in student.branches}
    yield (
        " ".join(given.values()),
        {name: read_signal(Path(given[name]), modalities[name], dataset or _own(student), rate) for name in modalities},
    )


def _own(student: Student) -> str:
    return str(student.description["dataset"]["name"])


def read_signal(path: Path, modality: Modality, dataset: str, rate: float | None) -> Signal:
    """A raw file as a signal.

    Raises:
        DataError: If it cannot be read.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if path.suffix in GENERIC and (rate is not None or path.suffix == ".npy"):
        return _plain_array(path, modality, rate)
    entry = plugin_manager().registry.get("dataset", dataset)
    required = {name: path.parent for name, field in options_model(entry).model_fields.items() if field.is_required()}
    try:
        return entry.load()(**required).read_file(path, modality.name)
    except TypeError as error:
        raise DataError(
            f"{path}: dataset {dataset!r} cannot read single files ({error}); "
            "give --dataset, or a .npy or .csv file with --rate"
        ) from error


def _plain_array(path: Path, modality: Modality, rate: float | None) -> Signal:
    try:
        values = (
            np.load(path, allow_pickle=False)
            if path.suffix == ".npy"
            else np.loadtxt(path, delimiter=_delimiter(path), ndmin=2)
        )
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}") from error
    rate = rate or modality.rate
    if not rate:
        raise DataError(f"{path}: say how many samples a second it has (--rate)")
    return Signal(values, rate)


def _delimiter(path: Path) -> str | None:
    with open(path, encoding="utf-8", errors="replace") as file:
        return "," if "," in file.readline() else None


def evaluate_run(run_id: str) -> Iterator[str]:
    """A line for every student of a run: its accuracy on the test part, from its saved folder and the raw recordings.

    Raises:
        KdcoreError: If the run has saved no student, or the recordings are no longer what it was trained on.
    """
    folder = find_run(run_id)
    plugins = plugin_manager()
    recipe = load_recipe(folder / "recipe.yaml", (), plugins)
    builder = Builder(recipe, plugins)
    dataset = builder.dataset()
    _, split, _ = load_split(dataset, builder.protocol(), recipe.data, modalities_of(recipe.participants.values()))
    found = sorted((folder / "students").glob("seed-*/*/student.json"))
    if not found:
        raise KdcoreError(f"{folder} holds no saved student")
    for description in found:
        student = load_student(description.parent)
        probabilities, labels = [], []
        for sample in split.parts["test"]:
            try:
                rows = student.predict({name: dataset.read(sample, name) for name in student.modalities})
            except DataError:
                if recipe.data.on_bad_sample == "error":
                    raise
                continue
            probabilities.append(rows)
            labels += [sample.label] * len(rows)
        metrics: Mapping[str, float] = evaluate(np.concatenate(probabilities), np.array(labels)).metrics()
        shown = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        yield f"{description.parent.parent.name} {description.parent.name}: {shown}"
