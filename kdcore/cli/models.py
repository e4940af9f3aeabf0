"""Commands for the trained students that come with kdcore."""

from __future__ import annotations

from typing import Annotated

import typer

from kdcore.cli.arguments import complete_model

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="List the shipped models, or print a model card.")


@app.command("list")
def list_models() -> None:
    """List the shipped models and what each classifies."""
    from kdcore.deploy.shipped_models import list_models as shipped

    models = shipped()
    width = max(map(len, models), default=0)
    for name, about in models.items():
        print(f"{name:<{width}}  {about}")


@app.command("card")
def card(
    name: Annotated[str, typer.Argument(help="Model name, as listed by kdcore models list.", autocompletion=complete_model)],
) -> None:
    """Print the model card of a shipped model.

    It describes the data, training, results, limitations and licence.
    """
    from kdcore.deploy.shipped_models import CARD, find_model

    print((find_model(name) / CARD).read_text(encoding="utf-8"), end="")
