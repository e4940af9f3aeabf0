"""The command that classifies recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdcore.errors import UsageError


def predict(
    student: Annotated[str, typer.Argument(help="Folder of a saved student or of several, or the id of a run.")],
    files: Annotated[list[Path], typer.Argument(help="Raw recordings; modality=file for a student of several modalities.")],
    dataset: Annotated[str, typer.Option(help="Dataset whose file format they have; the student's own by default.")] = "",
    rate: Annotated[float | None, typer.Option(help="Samples per second, for .npy files and plain tables.")] = None,
    top: Annotated[int, typer.Option(help="Number of classes to show.", min=1)] = 3,
    seed: Annotated[int | None, typer.Option(help="Seed of the run; the first by default.")] = None,
    ensemble: Annotated[str, typer.Option(help="How to combine several students: average or max.")] = "average",
    window: Annotated[float | None, typer.Option(help="Classify windows of so many seconds of a long recording.")] = None,
    hop: Annotated[float | None, typer.Option(help="Seconds between the starts of two windows; --window by default.")] = None,
    smoothing: Annotated[int, typer.Option(help="Number of windows, up to the current one, to smooth over.")] = 1,
    majority: Annotated[bool, typer.Option("--majority", help="Smooth by majority vote, not by mean probabilities.")] = False,
) -> None:
    """Classify raw recordings with a saved student."""
    from kdcore.deploy.bundle import load_predictor
    from kdcore.deploy.predict import predict_files
    from kdcore.deploy.streaming import Smoothing, chosen_window
    from kdcore.runs.records import find_student

    found = load_predictor(find_student(student, seed), ensemble)  # type: ignore[arg-type]  # it checks
    steady = Smoothing(smoothing, "majority" if majority else "mean")
    cutting = chosen_window(window, hop, found.window)
    if cutting is None and (smoothing > 1 or majority):
        raise UsageError("--smoothing and --majority require --window")
    for line in predict_files(found, files, dataset, rate, top, cutting, steady):
        print(line)
