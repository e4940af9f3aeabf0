"""The command that classifies recordings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdcore.cli.arguments import complete_model
from kdcore.cli.imports import importing
from kdcore.errors import UsageError

if TYPE_CHECKING:
    from kdcore.deploy.predictor import Predictor
    from kdcore.deploy.streaming import Smoothing


StudentArgument = Annotated[
    str,
    typer.Argument(
        help="Folder of a saved student, an exported .onnx file, a shipped model, or a run (ID, folder or recipe name). "
        "With --model, this is the first recording."
    ),
]
FilesArgument = Annotated[
    list[str] | None,
    typer.Argument(help="Files to classify: modality=file for a student with several modalities, - for standard input."),
]
Model = Annotated[
    str, typer.Option(help="Shipped model to use, as listed by kdcore models list.", autocompletion=complete_model)
]
Threshold = Annotated[
    float | None,
    typer.Option(help="Probability at or above which a label is predicted, for multi-label students. Default: 0.5."),
]
Majority = Annotated[
    bool, typer.Option("--majority", help="Smooth by majority vote over windows instead of averaging probabilities.")
]
Plot = Annotated[
    Path | None, typer.Option(help="Write an .html file with plots of the recordings and their predictions over time.")
]


def predict(
    student: StudentArgument,
    files: FilesArgument = None,
    model: Model = "",
    dataset: Annotated[str, typer.Option(help="Dataset whose file format to use. Default: the student's dataset.")] = "",
    rate: Annotated[float | None, typer.Option(help="Sampling rate of .npy files and plain tables, in Hz.")] = None,
    units: Annotated[str, typer.Option(help="Unit of .npy files and plain tables, e.g. g.")] = "",
    decimal: Annotated[str, typer.Option(help="Decimal mark of plain tables: . or a comma.")] = ".",
    top: Annotated[int | None, typer.Option(help="Number of classes to show. Default: 3.", min=1)] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run. Default: the first seed.")] = None,
    ensemble: Annotated[str, typer.Option(help="How to combine several students: average or max.")] = "average",
    window: Annotated[float | None, typer.Option(help="Window length in seconds.")] = None,
    hop: Annotated[float | None, typer.Option(help="Seconds between window starts. Default: the window length.")] = None,
    smoothing: Annotated[int, typer.Option(help="Number of windows to average predictions over.", min=1)] = 1,
    threshold: Threshold = None,
    majority: Majority = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write all probabilities to a .csv or .json file.")
    ] = None,
    plot: Plot = None,
) -> None:
    """Classify recordings with a saved student.

    With --model, classify them with a model that comes with kdcore.
    """
    from kdcore.cli.pictures import write_drawings
    from kdcore.deploy.predict import STANDARD_INPUT, drawings, predict_files, predict_stream, write_predictions
    from kdcore.deploy.shipped_models import find_model
    from kdcore.user_warnings import counted

    files = [*([student] if model else []), *(files or [])]
    _check_arguments(student, files, dataset, decimal, plot)
    predictor = _predictor(str(find_model(model)) if model else student, seed, ensemble)
    if top is not None and not predictor.target.is_classes:
        raise UsageError(f"--top requires a student of classes; this one predicts {predictor.target.kind}")
    windows, smooth = _windows(window, hop, smoothing, majority, predictor)
    reading = {"rate": rate, "units": units, "decimal": decimal}
    options = {"window": windows, "smoothing": smooth, "threshold": _threshold(threshold, predictor), **reading}
    if STANDARD_INPUT in files:  # each prediction is printed at once, for a stream may not end
        write_predictions(predict_stream(predictor, sys.stdin, **options), output, top or 3)
        return
    with counted("recordings"):
        predictions = predict_files(predictor, files, dataset, **options)
        if plot:
            predictions = list(predictions)
        write_predictions(predictions, output, top or 3)
    if plot:
        print(write_drawings("Predictions over time", drawings(predictor, list(predictions)), plot), file=sys.stderr)


def _check_arguments(student: str, files: list[str], dataset: str, decimal: str, plot: Path | None) -> None:
    """Check that the recordings can be classified together and with the given options."""
    from kdcore.cli.pictures import refuse_page_path
    from kdcore.deploy.predict import STANDARD_INPUT

    refuse_page_path("--plot", plot)
    if decimal not in (".", ","):
        raise UsageError(f"--decimal is '.' or ',', not {decimal!r}")
    if not files:
        raise UsageError(f"no recording to classify with {student!r}: give a file, or - for standard input")
    if STANDARD_INPUT in files and plot:
        raise UsageError("--plot requires recordings in files, not standard input (-)")
    if STANDARD_INPUT in files and (len(files) > 1 or dataset):
        raise UsageError("standard input (-) must be a single plain table; leave out other files and --dataset")


def _windows(
    length: float | None, hop: float | None, smoothing: int, majority: bool, student: Predictor
) -> tuple[tuple[float, float] | None, Smoothing]:
    """Return (length, hop) of the windows in seconds, None for whole recordings, and their smoothing."""
    from kdcore.deploy.streaming import Smoothing, chosen_window

    windows = chosen_window(length, hop, student.window)
    if windows is None and (smoothing > 1 or majority):
        raise UsageError(f"--{'majority' if majority else 'smoothing'} requires --window")
    if majority and smoothing < 2:
        raise UsageError("--majority requires --smoothing, the number of windows that vote: at least 2")
    return windows, Smoothing(smoothing, "majority" if majority else "mean")


def _threshold(given: float | None, student: Predictor) -> float:
    from kdcore.deploy.predict import THRESHOLD

    if given is None:
        return THRESHOLD
    if student.target.kind != "labels":
        raise UsageError(f"--threshold requires a student of labels; this one predicts {student.target.kind}")
    if not 0 < given < 1:
        raise UsageError(f"--threshold must be between 0 and 1, not {given:g}")
    return given


def _predictor(student: str, seed: int | None, ensemble: str):
    """Load a saved student, an ensemble, or an exported file. A plugin may open the latter without PyTorch."""
    from kdcore.plugin.manager import plugin_manager

    exported = plugin_manager().hook.open_predictor(path=Path(student))
    if exported is not None:
        return exported
    with importing():
        from kdcore.deploy.saved_student import load_predictor
        from kdcore.runs.find_student import find_student

    return load_predictor(find_student(student, seed), ensemble)  # type: ignore[arg-type]  # load_predictor checks the value
