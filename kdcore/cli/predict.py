"""The command that classifies recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdcore.errors import UsageError


def predict(
    student: Annotated[str, typer.Argument(help="A saved student's folder, one with several students, or a run's id.")],
    files: Annotated[list[Path], typer.Argument(help="Raw recordings; for a student of several modalities, modality=file.")],
    dataset: Annotated[str, typer.Option(help="Whose file format they are in; the student's own by default.")] = "",
    rate: Annotated[float | None, typer.Option(help="Samples per second, for .npy files and plain tables.")] = None,
    top: Annotated[int, typer.Option(help="How many classes to show.", min=1)] = 3,
    seed: Annotated[int | None, typer.Option(help="Which seed of a run; its first by default.")] = None,
    ensemble: Annotated[str, typer.Option(help="How several students answer as one: average or max.")] = "average",
    window: Annotated[float | None, typer.Option(help="Answer for every so many seconds of a long recording.")] = None,
    hop: Annotated[float | None, typer.Option(help="Seconds from a window's start to the next's; a window by default.")] = None,
    smoothing: Annotated[int, typer.Option(help="Windows, this one and those before it, that an answer rests on.")] = 1,
    majority: Annotated[bool, typer.Option("--majority", help="Smooth by votes, not by mean probabilities.")] = False,
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
        raise UsageError("smoothing is over windows: say with --window how long one is")
    for line in predict_files(found, files, dataset, rate, top, cutting, steady):
        print(line)
