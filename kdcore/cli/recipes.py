"""Commands for the recipes that come with kdcore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdcore.cli.arguments import complete_recipe
from kdcore.errors import UsageError

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="List or copy the recipes that come with kdcore.")


@app.command("list")
def list_recipes() -> None:
    """List the shipped recipes with a short description of each."""
    from kdcore.recipe.shipped import list_recipes as shipped

    recipes = shipped()
    width = max(map(len, recipes))
    for name, about in recipes.items():
        print(f"{name:<{width}}  {about}")


@app.command("copy")
def copy_recipe(
    name: Annotated[str, typer.Argument(help="Recipe name, as listed by kdcore recipes list.", autocompletion=complete_recipe)],
    to: Annotated[Path, typer.Argument(help="Destination file or folder. Default: the current folder.")] = Path(),
) -> None:
    """Copy a shipped recipe, so that you can edit it."""
    from kdcore.recipe.shipped import find_recipe, for_copying

    source = find_recipe(name)
    target = to / source.name if to.is_dir() else to
    if target.exists():
        raise UsageError(f"{target} already exists")
    if not target.parent.is_dir():
        raise UsageError(f"the folder {target.parent} does not exist")
    target.write_text(for_copying(source), encoding="utf-8")
    print(target)
