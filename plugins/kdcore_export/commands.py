"""Commands of the plugin; what they need is imported inside them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """File formats."""

    onnx = "onnx"
    torch_export = "torch-export"


class Rule(StrEnum):
    """Rules of an ensemble."""

    average = "average"
    max = "max"


def export(
    student: Annotated[
        str, typer.Argument(help="A saved student's folder, a seed's folder, or a run: its id, folder or recipe's name.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write: .onnx or .pt2.")],
    format: Annotated[Format | None, typer.Option(help="File format; the output's ending decides by default.")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Quantise weights and activations to eight bits (ONNX only).")] = False,
    opset: Annotated[int | None, typer.Option(help="ONNX operator set version; the exporter's default if not given.")] = None,
    samples: Annotated[int | None, typer.Option(help="Fix the number of samples of a recording.", min=1)] = None,
    check: Annotated[list[str] | None, typer.Option(help="Recording to compare outputs on; may be repeated.")] = None,
    dataset: Annotated[str, typer.Option(help="Dataset whose file format those have; the student's own by default.")] = "",
    rate: Annotated[float | None, typer.Option(help="Samples per second of .npy files and plain tables.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of a run; the first by default.")] = None,
    ensemble: Annotated[Rule, typer.Option(help="Combine several students by average or max.")] = Rule.average,
    card: Annotated[bool, typer.Option(help="Write a model card (README.md) beside the file.")] = True,
) -> None:
    """Export a student with its preprocessing as one file that runs without kdcore."""
    from kdcore_export.export import Request, export_student

    kind = format.value if format else None
    files = tuple(check or ())
    request = Request(student, output, kind, int8, samples, files, dataset, rate, seed, ensemble.value, opset, card)
    for line in export_student(request):
        print(line)
