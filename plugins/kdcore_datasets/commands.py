"""Commands of the plugin. They import slow modules in their bodies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def new(
    folder: Annotated[Path, typer.Argument(help="Folder or zip archive of the recordings.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Recipe to write. Default: the name of the folder with .yaml.")
    ] = None,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Sampling rate in Hz, if the files do not contain it.")] = None,
) -> None:
    """Inspect a folder of recordings and write a recipe that reads them.

    Detects delimiter, header, time column, channels, labels, subjects and file name patterns. Prints what was detected and what
    you need to fill in. A zip archive is unpacked to a folder next to it. Nothing is trained.
    """
    from kdcore_datasets.new.recipe import new_recipe

    new_recipe(folder, output, rate)
