"""The commands; what they need is imported inside them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """Kinds of file."""

    onnx = "onnx"
    torch_export = "torch-export"


class Rule(StrEnum):
    """How several students answer as one."""

    average = "average"
    max = "max"


def export(
    student: Annotated[str, typer.Argument(help="A saved student's folder, one with several students, or a run's id.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    format: Annotated[Format, typer.Option(help="What to write.")] = Format.onnx,
    int8: Annotated[bool, typer.Option("--int8", help="Eight-bit weights and activations; ONNX only.")] = False,
    samples: Annotated[
        int | None, typer.Option(help="Fix how many samples a recording has; else any, if possible.", min=1)
    ] = None,
    check: Annotated[list[Path] | None, typer.Option(help="Raw recording to compare answers on; may be repeated.")] = None,
    dataset: Annotated[str, typer.Option(help="Whose file format those are in; the student's own by default.")] = "",
    rate: Annotated[float | None, typer.Option(help="Samples per second, for .npy files and plain tables.")] = None,
    seed: Annotated[int | None, typer.Option(help="Which seed of a run; its first by default.")] = None,
    ensemble: Annotated[Rule, typer.Option(help="How several students answer as one.")] = Rule.average,
) -> None:
    """Write a student with its preprocessing as one file that runs without kdcore."""
    from kdcore_export.exporting import Request, write

    request = Request(student, output, format.value, int8, samples, tuple(check or ()), dataset, rate, seed, ensemble.value)
    for line in write(request):
        print(line)
