"""Records of a run in MLflow other than metrics: files, datasets, digests of teachers, and models of students."""

from __future__ import annotations

import getpass
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from kdcore import (
    RunContext,
    RunJournal,
    Summary,
    __version__,
    first_recording,
    recipe_changes,
    student_folder,
)
from kdcore_mlflow.notes import run_note, seed_note
from kdcore_mlflow.tracker import MlflowTracker

DIGEST_LIMIT = 36
"""Maximum length of a dataset digest in MLflow."""

CODE, REQUIREMENTS = Path(__file__).with_name("pyfunc_model.py"), (f"kdcore=={__version__}",)
"""File that MLflow runs to serve a student, and its requirements."""


def record_start(run: RunContext, journal: RunJournal) -> None:
    """Record the user, the source commit, the recipe and the data."""
    journal.tags("root", {"mlflow.note.content": run.recipe.description, **_origin(run), **run.recipe.tracking.tags})
    for name in ("recipe.yaml", "run.json"):
        journal.artifact("root", run.folder / name)
    if (run.folder / "plugins").is_dir():
        journal.artifact("root", run.folder / "plugins")
    dataset, digest = run.recipe.data.dataset, run.table.fingerprint[:DIGEST_LIMIT]
    source = str(dataset.options.get("root", dataset.name))
    for split, context in (("train", "training"), ("test", "testing")):
        journal.record("dataset", "root", name=f"{dataset.name}-{split}", digest=digest, source=source, context=context)


def record_seed(run: RunContext, journal: RunJournal, seed: int) -> None:
    """Record the user and the source commit of a seed's run, and start recording the system load."""
    if isinstance(journal.tracker, MlflowTracker):
        journal.tracker.watch_load(f"seed-{seed}")
    journal.tags(f"seed-{seed}", _origin(run))


def _origin(run: RunContext) -> dict[str, str]:
    """Return the tags that MLflow shows as user, source and version of a run."""
    tags = {"mlflow.source.name": " ".join(run.command[:3]) or "kdcore", "mlflow.source.type": "LOCAL"}
    with suppress(OSError, KeyError):  # some containers have accounts without a name
        tags["mlflow.user"] = getpass.getuser()
    if commit := _commit(Path(run.command[2]) if len(run.command) > 2 else Path()):
        tags["mlflow.source.git.commit"] = commit
    return tags


def _commit(recipe: Path) -> str:
    """Return the Git commit of the recipe's folder, or else of the current folder; empty without one."""
    folder = recipe.expanduser().parent if recipe.is_file() else Path()
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):  # Git is not installed
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def record_arm(run: RunContext, journal: RunJournal, seed: int, arm: str, students: Sequence[str]) -> None:
    """Record the predictions of an arm and the files of its students; for the last arm, the students of all seeds as models.

    MLflow loads each model to try it, which draws random numbers, so nothing may be trained meanwhile. This takes as long as
    the report, which is written in parallel.
    """
    journal.artifact("root", run.folder / "results" / f"seed-{seed}-{arm}.npz", "results")
    for name in students if arm == "distilled" else ():
        journal.artifact(f"seed-{seed}", student_folder(run.folder, seed, name), "students")
    if (seed, arm) == (run.recipe.seeds[-1], run.assembly.plan.arms[-1]):
        _record_models(run, journal)


def record_end(run: RunContext, journal: RunJournal, summary: Summary, report: Path | None) -> None:
    """Record the report and the notes."""
    if report:
        journal.artifact("root", report)
        pictures = report.with_name("pictures")
        for picture in sorted(pictures.iterdir()) if pictures.is_dir() else ():
            journal.artifact("root", picture, "pictures")
    for seed in run.recipe.seeds:
        journal.tags(f"seed-{seed}", {"mlflow.note.content": seed_note(summary, seed)})
    model = f"Logged model: the student of seed {run.recipe.seeds[0]}." if _models(run, run.recipe.seeds[0]) else ""
    changes = recipe_changes(run.command, run.assembly.plan.filled)
    journal.tags("root", {"mlflow.note.content": run_note(summary, changes, model)})


def _record_models(run: RunContext, journal: RunJournal) -> None:
    for seed in run.recipe.seeds:
        for name, folder in _models(run, seed).items():
            member = name if name in run.recipe.student_specs else next(iter(run.recipe.student_specs))
            record_model(journal, f"seed-{seed}", name, {"student": folder}, _example(run, member))
            if seed == run.recipe.seeds[0]:
                journal.record("linked_model", "root", name=name, source=f"seed-{seed}")


def _models(run: RunContext, seed: int) -> dict[str, Path]:
    """Return the folders of models by name: students of one modality, since MLflow's example input is one array."""
    specs = run.recipe.student_specs.items()
    students = {name: spec for name, spec in specs if student_folder(run.folder, seed, name).is_dir()}
    found = {name: student_folder(run.folder, seed, name) for name, spec in students.items() if len(spec.modalities) == 1}
    origins = {spec.starts_from for spec in students.values()}  # earlier phases, and no members of the ensemble
    if len(students.keys() - origins) > 1 and len({each for spec in students.values() for each in spec.modalities}) == 1:
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
        journal: Journal of the run.
        run: Local name of the run that created the model.
        name: Name of the model.
        artifacts: Files that `code` accesses through ``context.artifacts``.
        example: Example input. The signature is derived from it and the model's output.
        code: File that ends in ``mlflow.models.set_model(…)``. MLflow does not warn about its ``predict`` if the input is
            annotated as ``numpy.ndarray``.
        requirements: Requirements of `code`, for pip.
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
