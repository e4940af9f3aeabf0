"""The commands for plugin authors; what they need is imported inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def check_plugin(
    name: Annotated[str, typer.Argument(help="A plugin, a component, or plugin/component.")],
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show every check, not only those that fail.")] = False,
) -> None:
    """Run the conformance checks on everything that a plugin provides."""
    from kdcore.testing import check_and_print

    if not check_and_print(name, verbose):
        raise typer.Exit(1)


def schema(to: Annotated[Path | None, typer.Option(help="File to write; standard output by default.")] = None) -> None:
    """Print the JSON Schema of recipes, with the options of all installed components: for editors."""
    import json

    from kdcore_devtools.json_schema import recipe_schema

    text = json.dumps(recipe_schema(), indent=1, ensure_ascii=False)
    if to is None:
        print(text)
    else:
        to.write_text(text + "\n", encoding="utf-8")
        print(to)


def new_plugin(
    kind: Annotated[str, typer.Argument(help="loss, encoder, fusion, schedule, dataset, transform or modality.")],
    name: Annotated[str, typer.Argument(help="Of the plugin and its component, such as soft-margin.")],
    to: Annotated[Path, typer.Option(help="The folder that it is put in.")] = Path(),
) -> None:
    """Create a plugin: a small package that works, with tests, a recipe, and workflows that publish it."""
    from kdcore_devtools.scaffold import new_plugin as generate

    folder = generate(kind, name, to)
    print(f"{folder}: written. Next:\n  cd {folder}\n  pip install -e '.[test]'\n  pytest\n  kdcore run recipe.yaml")
