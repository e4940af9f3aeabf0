"""Commands of the plugin; what they need is imported inside them."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kdcore import Overrides, RecipeArgument


class PlanFormat(StrEnum):
    """Formats of a plan."""

    tree = "tree"
    mermaid = "mermaid"
    json = "json"


def plan(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    format: Annotated[PlanFormat, typer.Option(help="Output format: text, a Mermaid diagram, or JSON.")] = PlanFormat.tree,
) -> None:
    """Show the stages and loss terms of a recipe.

    Also shows epochs, who learns from whom, and what is cached.
    """
    from kdcore import load_recipe, make_plan
    from kdcore_inspect.plan import mermaid, record, tree

    made = make_plan(load_recipe(recipe, overrides or []))
    if format is PlanFormat.json:
        print(json.dumps(record(made), indent=1, ensure_ascii=False))
    else:
        print("\n".join(tree(made) if format is PlanFormat.tree else mermaid(made)))


def check_data(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    pictures: Annotated[
        Path | None,
        typer.Option(help="Write an .html file with a plot of one training recording per modality and class."),
    ] = None,
) -> None:
    """Count samples, and check for leaks between splits.

    Reads all recordings. Samples are counted by class, subject and split.
    """
    from kdcore import refuse_page_path, write_drawings
    from kdcore_inspect.data_check import check
    from kdcore_inspect.data_report import drawings, show

    refuse_page_path("--pictures", pictures)
    report = check(recipe, overrides or [], examples=pictures is not None)
    show(report)
    if pictures:
        print(write_drawings(f"{report.dataset}: one training recording per class", drawings(report), pictures))
    if report.broken or report.leaks or report.windowless:
        raise typer.Exit(1)
