"""Everything MLflow shows of a run besides its metrics: files, data sets, teachers' digests and students as models."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from kdcore import RunContext, RunJournal, __version__, first_recording, student_folder
from kdcore_mlflow.tracker import MlflowTracker

DIGEST_LIMIT = 36
"""The number of characters that MLflow takes of a data set's digest."""

CODE, REQUIREMENTS = Path(__file__).with_name("pyfunc_model.py"), (f"kdcore=={__version__}",)
"""The file that MLflow runs to serve a student, and its requirements."""


def record_start(run: RunContext, journal: RunJournal) -> None:
    """Record who runs what, the recipe and the data, and from now on how busy the machine is."""
    if isinstance(journal.tracker, MlflowTracker):
        journal.tracker.watch_load()
    tags = {"mlflow.note.content": run.recipe.description, "mlflow.user": os.environ.get("USER", "")}
    journal.tags("root", {**tags, "mlflow.source.name": "kdcore", **run.recipe.tracking.tags})
    for name in ("recipe.yaml", "run.json"):
        journal.artifact("root", run.folder / name)
    if (run.folder / "plugins").is_dir():
        journal.artifact("root", run.folder / "plugins")
    dataset, digest = run.recipe.data.dataset, run.table.fingerprint[:DIGEST_LIMIT]
    source = str(dataset.options.get("root", dataset.name))
    for split, context in (("train", "training"), ("test", "testing")):
        journal.record("dataset", "root", name=f"{dataset.name}-{split}", digest=digest, source=source, context=context)


def record_arm(run: RunContext, journal: RunJournal, seed: int, arm: str, students: Sequence[str]) -> None:
    """Record an arm's predictions, and its students' files."""
    journal.artifact("root", run.folder / "results" / f"seed-{seed}-{arm}.npz", "results")
    for name in students if arm == "distilled" else ():
        journal.artifact(f"seed-{seed}", student_folder(run.folder, seed, name), "students")


def record_end(run: RunContext, journal: RunJournal, report: Path | None) -> None:
    """Record the report, and the students as models.

    MLflow loads every model to try it out, beside whatever runs then, which must not be training: making a network draws
    random numbers.
    """
    if report:
        journal.artifact("root", report)
        pictures = report.with_name("pictures")
        for picture in sorted(pictures.iterdir()) if pictures.is_dir() else ():
            journal.artifact("root", picture, "pictures")
    for seed in run.recipe.seeds:
        for name, folder in _models(run, seed).items():
            member = name if name in run.recipe.student_specs else next(iter(run.recipe.student_specs))
            record_model(journal, f"seed-{seed}", name, {"student": folder}, _example(run, member))


def _models(run: RunContext, seed: int) -> dict[str, Path]:
    """Model → folder of what it loads: students of one modality, since MLflow's example input is one array."""
    students = run.recipe.student_specs
    found = {name: student_folder(run.folder, seed, name) for name, spec in students.items() if len(spec.modalities) == 1}
    if len(students) > 1 and len({modality for spec in students.values() for modality in spec.modalities}) == 1:
        found["ensemble"] = run.folder / "students" / f"seed-{seed}"
    return found


def _example(run: RunContext, student: str) -> np.ndarray:
    [modality] = run.recipe.student_specs[student].modalities
    values = np.asarray(first_recording(run, modality).values)[None]
    return values.astype(np.float32) if values.dtype == np.float64 else values


def record_model(
    journal: RunJournal,
    run: str,
    name: str,
    artifacts: Mapping[str, Path],
    example: np.ndarray,
    code: Path = CODE,
    requirements: Sequence[str] = REQUIREMENTS,
) -> None:
    """Record a model that ``mlflow.pyfunc.load_model("runs:/<run>/<name>")`` can load.

    Args:
        journal: Of the run.
        run: Local name of the run that made it.
        name: Of the model.
        artifacts: What `code` finds in ``context.artifacts``.
        example: An input; the signature is made from it and from the model's answer.
        code: A file that ends in ``mlflow.models.set_model(…)``. MLflow is silent about its ``predict`` if that
            annotates the input as ``numpy.ndarray``.
        requirements: What `code` needs, for pip.
    """
    file = journal.place(run, f"models/{name}") / "input_example.npy"
    np.save(file, example)
    kept = {key: journal.keep(run, path, f"models/{name}/{key}") for key, path in artifacts.items()}
    journal.record(
        "model",
        run,
        name=name,
        code=journal.keep(run, code, f"models/{name}"),
        artifacts=kept,
        input_example=file.relative_to(journal.folder).as_posix(),
        pip_requirements=list(requirements),
    )
