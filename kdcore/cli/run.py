"""Commands that validate, run and evaluate a recipe, and store the outputs of its participants."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdcore.cli import STARTED
from kdcore.cli.arguments import Overrides, RecipeArgument, RunArgument, RunArguments, complete_recipe, plugin_options
from kdcore.cli.imports import importing
from kdcore.errors import UsageError

EXAMPLES = """\b
Examples:
  kdcore run quickstart
  kdcore run sakdn 'seeds=[0,1,2]' losses.soft-target.weight=0.5
  kdcore run utd-mhad/sakdn data.dataset.root=~/UTD-MHAD --dry-run"""

Profile = Annotated[
    bool,
    typer.Option("--profile", help="Print the time spent in each phase, and write traces of some steps to the run's folder."),
]

MoreRecipes = Annotated[
    list[str] | None,
    typer.Argument(
        help="More recipes, and overrides as key=value, which apply to all recipes.", autocompletion=complete_recipe
    ),
]


def run(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Run one batch through all models and losses and print the result, without training."),
    ] = False,
    profile: Profile = False,
) -> None:
    """Run a recipe: train, evaluate and write a report."""
    with importing():
        from kdcore.cli.console import ConsoleListener, show_preflight, stderr
        from kdcore.runs.run import dry_run as rehearse
        from kdcore.runs.run import run as start

    if dry_run and profile:
        raise UsageError("--profile cannot be combined with --dry-run, which does not train")
    with ConsoleListener(stderr()) as listener:
        if dry_run:
            if preflight := rehearse(recipe, overrides or [], callbacks=[listener]):
                show_preflight(preflight)
            return
        command_line = ["kdcore", "run", recipe, *(overrides or []), *plugin_options()]
        result = start(recipe, overrides or [], callbacks=[listener], command=command_line, profile=profile, began=STARTED)
    _show(result, profile)


def resume(run_id: RunArgument, overrides: Overrides = None, profile: Profile = False) -> None:
    """Resume an interrupted run, or extend a finished run.

    To extend a finished run, override its number of epochs, e.g. schedule.student.epochs=60.
    """
    with importing():
        from kdcore.cli.console import ConsoleListener, stderr
        from kdcore.runs.run import resume as go_on

    with ConsoleListener(stderr()) as listener:
        result = go_on(run_id, overrides or [], callbacks=[listener], profile=profile, began=STARTED)
    _show(result, profile)


def validate(recipe: RecipeArgument, overrides: MoreRecipes = None) -> None:
    """Validate recipes without reading data or training."""
    from kdcore.errors import RecipeError

    recipes = [recipe, *(word for word in overrides or () if "=" not in word)]
    changes = [word for word in overrides or () if "=" in word]
    problems = []
    for each in recipes:
        try:
            _check(each, changes)
        except RecipeError as error:
            problems += error.problems
    if problems:
        raise RecipeError(problems)


def _check(recipe: str, overrides: list[str]) -> None:
    from kdcore.recipe.load import load_recipe
    from kdcore.recipe.plan import make_plan

    plan = make_plan(load_recipe(recipe, overrides))
    size = ", ".join(
        f"{len(each)} {what}{'' if len(each) == 1 else 's'}"
        for what, each in (("teacher", plan.teachers), ("student", plan.students))
    )
    print(f"{recipe}: valid ({plan.recipe.name}, {size}, hash {plan.hash[:12]})")


def evaluate(
    run_id: RunArgument,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Overrides of the dataset as key=value, e.g. data.dataset.root=FOLDER")
    ] = None,
) -> None:
    """Evaluate the saved students of a run again.

    They are evaluated on the run's test split. With overrides of the run's dataset, they are evaluated on all labelled
    recordings of the new dataset that the run did not train on.
    """
    with importing():
        from kdcore.runs.evaluation import evaluate_run
        from kdcore.runs.new_recordings import evaluate_recordings

    for line in evaluate_recordings(run_id, overrides) if overrides else evaluate_run(run_id):
        print(line)


def outputs(
    run_ids: RunArguments,
    of: Annotated[str, typer.Option(help="Name of the teacher or student whose outputs to store.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Output file: .parquet, .npz or .safetensors.")],
    seed: Annotated[int | None, typer.Option(help="Seed of the runs. Default: the first seed.")] = None,
) -> None:
    """Store the outputs of a trained teacher or student.

    A recipe can use the file instead of a teacher network (`outputs:`). For several runs, such as the folds of a
    cross-validation, the file has each run's outputs for its test split, without features.
    """
    with importing():
        from kdcore.runs.outputs import store_outputs

    counts = store_outputs(run_ids, of, output, seed)
    splits = ", ".join(f"{count} of {split}" for split, count in counts.items())
    print(f"{output}: outputs of {of} for {sum(counts.values())} samples ({splits})")


def _show(result, profile: bool) -> None:
    if result is not None:
        from kdcore.cli.console import show_profile, show_result

        if profile:
            show_profile(result)
        show_result(result)
