"""Commands of the plugin; what they need is imported inside them."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer


class PlanFormat(StrEnum):
    """Formats of a plan."""

    tree = "tree"
    mermaid = "mermaid"
    json = "json"


def plan(
    recipe: Annotated[str, typer.Argument(help="Path to a recipe, or the name of a shipped recipe.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Recipe overrides as key=value, e.g. losses.soft-target.weight=0.5")
    ] = None,
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
