"""Commands of the plugin. They import slow modules in their bodies."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """File formats."""

    onnx = "onnx"
    torch_export = "torch-export"
    executorch = "executorch"


class Rule(StrEnum):
    """Rules for combining an ensemble."""

    average = "average"
    max = "max"


class DecimalMark(StrEnum):
    """Decimal marks of text tables."""

    point = "."
    comma = ","


def export(
    student: Annotated[
        str, typer.Argument(help="Folder of a saved student, folder of a seed, or a run (ID, folder or recipe name).")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Output file: .onnx, .pt2 or .pte.")],
    format: Annotated[Format | None, typer.Option(help="File format. Default: determined by the suffix of the output.")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Quantise weights and activations to eight bits (ONNX only).")] = False,
    opset: Annotated[int | None, typer.Option(help="ONNX operator set version. Default: that of the exporter.")] = None,
    samples: Annotated[int | None, typer.Option(help="Number of samples of a recording, if fixed.", min=1)] = None,
    check: Annotated[list[str] | None, typer.Option(help="Recording to compare outputs on; can be repeated.")] = None,
    dataset: Annotated[str, typer.Option(help="Dataset whose file format to use. Default: the student's dataset.")] = "",
    rate: Annotated[float | None, typer.Option(help="Sampling rate of .npy files and plain tables, in Hz.")] = None,
    units: Annotated[str, typer.Option(help="Unit of .npy files and plain tables. Default: that of the modality.")] = "",
    decimal: Annotated[DecimalMark, typer.Option(help="Decimal mark of plain tables.")] = DecimalMark.point,
    seed: Annotated[int | None, typer.Option(help="Seed of the run. Default: the first seed.")] = None,
    ensemble: Annotated[Rule, typer.Option(help="How to combine several students: average or max.")] = Rule.average,
    card: Annotated[bool, typer.Option(help="Write a model card (README.md) next to the file.")] = True,
) -> None:
    """Export a student to one file that runs without kdcore.

    The file includes the preprocessing.
    """
    from kdcore_export.clips import Given
    from kdcore_export.export import Request, export_student

    kind = format.value if format else None
    given = Given(check or (), dataset, rate, units, decimal.value)
    request = Request(student, output, kind, int8, samples, given, seed, ensemble.value, opset, card)
    for line in export_student(request):
        print(line)
