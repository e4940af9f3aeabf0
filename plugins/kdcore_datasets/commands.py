"""Commands of the plugin; what they need is imported inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def new(
    folder: Annotated[Path, typer.Argument(help="Folder of the recordings.")],
    to: Annotated[Path | None, typer.Option(help="Recipe to write; by default the folder's name with .yaml.")] = None,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Samples per second, where the files do not tell.")] = None,
) -> None:
    """Look at a folder of recordings and write a recipe that reads them.

    Guesses delimiter, header, time column, channels, labels, subjects and names of files, and says what was guessed and what
    must be filled in. Nothing is trained.
    """
    from kdcore_datasets.new.recipe import new_recipe

    new_recipe(folder, to, rate)
