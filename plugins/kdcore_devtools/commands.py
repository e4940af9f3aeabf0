"""Commands for plugin authors, which import slow modules in their bodies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def check_plugin(
    name: Annotated[str, typer.Argument(help="Name of a plugin, a component, or plugin/component.")],
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show all checks, not only failed ones.")] = False,
) -> None:
    """Run the conformance checks on a plugin."""
    from kdcore.testing import check_and_print

    if not check_and_print(name, verbose):
        raise typer.Exit(1)


def schema(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Output file. Default: standard output.")] = None,
) -> None:
    """Print the JSON Schema of recipes, for editors. It includes the options of all installed components."""
    import json

    from kdcore_devtools.json_schema import recipe_schema

    text = json.dumps(recipe_schema(), indent=1, ensure_ascii=False)
    if output is None:
        print(text)
    else:
        output.write_text(text + "\n", encoding="utf-8")
        print(output)


def new_plugin(
    kind: Annotated[str, typer.Argument(help="loss, encoder, fusion, schedule, dataset, transform or modality.")],
    name: Annotated[str, typer.Argument(help="Name of the plugin and its component, e.g. soft-margin.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder in which to create the plugin.")] = Path(),
) -> None:
    """Create a plugin from a template.

    The result is a working package with tests, a recipe and publishing workflows.
    """
    from kdcore_devtools.scaffold import new_plugin as generate

    folder = generate(kind, name, output)
    print(f"{folder}: written. Next:\n  cd {folder}\n  pip install -e '.[test]'\n  pytest\n  kdcore run recipe.yaml")
