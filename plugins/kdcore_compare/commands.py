"""The commands as the command line sees them; each imports its work when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Recipe = Annotated[str, typer.Argument(help="A recipe's file, or the name of a shipped one.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Changes to it, as key=value.")]
Form = Annotated[
    Literal["rich", "markdown", "csv", "latex", "html"],
    typer.Option("--format", help="rich is for the terminal; csv has one number a line, in fractions."),
]
Output = Annotated[
    Path | None, typer.Option(help="Write to this file instead; its ending decides the format if none is given.")
]
Metric = Annotated[Literal["accuracy", "macro_f1", "loss"], typer.Option(help="What differences are of.")]
Uri = Annotated[str | None, typer.Option(help="MLflow's address; as for tracking by default.")]
Jobs = Annotated[int, typer.Option(min=1, help="Processes at a time; the machine's cores are shared out.")]


def compare(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="Runs (ids or folders) or recipes; the first is what the others are compared with. A+B takes several runs as "
            "one; A@baseline, A@teachers, A@NAME take somebody else than the student. A alone is compared with A@baseline. "
            "key=value changes every recipe named, as when it was run."
        ),
    ] = None,
    experiment: Annotated[str, typer.Option(help="Also every finished run of this MLflow experiment.")] = "",
    matching: Annotated[str, typer.Option("--filter", help="Only those that match, e.g. \"tags.dataset = 'utd-mhad'\".")] = "",
    uri: Uri = None,
    metric: Metric = "accuracy",
    anyway: Annotated[bool, typer.Option("--anyway", help="Compare even what is not comparable.")] = False,
    form: Form = "rich",
    output: Output = None,
) -> None:
    """Compare finished runs, paired by seed and split: means, differences with intervals, classes, cost."""
    from kdcore_compare.comparing import compare_sources
    from kdcore_compare.output import format_for, put
    from kdcore_compare.telling import records, tables

    form = format_for(form, output)
    found = compare_sources(sources or [], experiment, uri, matching, metric, anyway)
    put(tables(found), list(records(found)), form, output)


def ablate(
    recipe: Recipe,
    overrides: Overrides = None,
    jobs: Jobs = 1,
    only: Annotated[str, typer.Option(help="Train this variant alone, and show no table.")] = "",
    metric: Metric = "accuracy",
    form: Form = "rich",
    output: Output = None,
) -> None:
    """Train a recipe whole and without each of its parts in turn, and show what each part adds.

    What has been trained already is not trained again; what was stopped is gone on with.
    """
    from kdcore_compare.ablation import ablate as start

    start(recipe, overrides or [], jobs, only, metric, form, output)


def sweep(
    recipe: Recipe,
    overrides: Overrides = None,
    grid: Annotated[
        list[str] | None, typer.Option(help="key=value,value,…: each of these values, with each of the others'.")
    ] = None,
    search: Annotated[int, typer.Option(min=0, help="Let Optuna choose this many points instead of the whole grid.")] = 0,
    ranges: Annotated[
        list[str] | None, typer.Option("--range", help="key=low:high, then :log or :int if so; for --search.")
    ] = None,
    storage: Annotated[str, typer.Option(help="Database of the sweep; sweeps.db in the folder of runs by default.")] = "",
    study: Annotated[str, typer.Option(help="Its name there; follows from the recipe and the points by default.")] = "",
    prune: Annotated[bool, typer.Option(help="In a search, stop what is behind the others on the validation part.")] = True,
    jobs: Jobs = 1,
    form: Form = "rich",
    output: Output = None,
) -> None:
    """Try a recipe with other values, and choose by accuracy on the validation part; test samples are never looked at.

    The same command again goes on with a sweep, or helps with it, on this machine or another.
    """
    from kdcore_compare.sweeping import sweep as start

    start(recipe, overrides or [], grid or [], search, ranges or [], storage, study, prune, jobs, form, output)


def reproduce(
    run_id: Annotated[str, typer.Argument(help="Id or folder of a finished run, or its id in MLflow.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="What is elsewhere here: data.dataset.root=…")] = None,
    uri: Uri = None,
) -> None:
    """Run a run's recipe again, and say whether it came out the same, to the bit, or what differs.

    Exit status 1 if it did not.
    """
    from kdcore_compare.reproduction import reproduce as start

    if not start(run_id, overrides or [], uri):
        raise typer.Exit(1)
