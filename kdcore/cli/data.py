"""Commands about recordings."""

from __future__ import annotations

import typer

from kdcore.cli.arguments import Overrides, RecipeArgument

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Inspect recordings before training on them.")


@app.command("check")
def check_data(recipe: RecipeArgument, overrides: Overrides = None) -> None:
    """Read every recording, count samples by class, subject and split, and look for leaks."""
    from kdcore.cli.console import show_data
    from kdcore.data.check import check

    found = check(recipe, overrides or [])
    show_data(found)
    if found.broken or found.leaks or found.windowless:
        raise typer.Exit(1)
