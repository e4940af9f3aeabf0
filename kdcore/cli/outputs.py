"""The command that stores a participant's outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdcore.cli.arguments import RunArgument


def outputs(
    run_id: RunArgument,
    of: Annotated[str, typer.Option(help="Name of the teacher or student.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write: .parquet, .npz or .safetensors.")],
    seed: Annotated[int | None, typer.Option(help="Seed of the run; the first by default.")] = None,
) -> None:
    """Store a trained participant's outputs in a file that recipes use as a teacher (`outputs:`)."""
    from kdcore.runs.outputs import store_outputs

    counts = store_outputs(run_id, of, output, seed)
    splits = ", ".join(f"{count} of {split}" for split, count in counts.items())
    print(f"{output}: outputs of {of} for {sum(counts.values())} samples ({splits})")
