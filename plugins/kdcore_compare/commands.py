"""Command-line interface of the plugin. Each command imports its implementation when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Recipe = Annotated[str, typer.Argument(help="Path of a recipe, or name of a shipped one.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Overrides of the recipe, as key=value.")]
Form = Annotated[
    Literal["rich", "markdown", "csv", "latex", "html"],
    typer.Option("--format", help="Output format. rich is for the terminal; csv has one number per line, as fractions."),
]
Output = Annotated[Path | None, typer.Option(help="Write to this file. Its suffix selects the format unless --format does.")]
Metric = Annotated[
    Literal["accuracy", "macro_f1", "loss", "map", "micro_f1", "subset_accuracy", "mae", "rmse", "r2"] | None,
    typer.Option(help="Metric whose differences are shown; by default accuracy, or what the dataset's target is judged by."),
]
Uri = Annotated[str | None, typer.Option(help="MLflow tracking URI; by default the one that runs are tracked to.")]
Jobs = Annotated[
    int, typer.Option(min=1, help="Number of parallel jobs; on this machine, the CPU cores are divided among them.")
]
Where = Annotated[
    str, typer.Option("--executor", help="Executor of the jobs: local, ray, slurm, or {name: NAME, option: value}.")
]


def compare(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="Runs (ids or folders) or recipes. The first is the reference. A+B pools several runs; A@baseline, "
            "A@teachers and A@NAME select a participant other than the student. A single source is compared with its "
            "baseline. key=value overrides every recipe; repeat the overrides of its run."
        ),
    ] = None,
    experiment: Annotated[str, typer.Option(help="Add every finished run of this MLflow experiment.")] = "",
    filter_string: Annotated[str, typer.Option("--filter", help="Add only matching runs: \"tags.dataset = 'utd-mhad'\".")] = "",
    uri: Uri = None,
    metric: Metric = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Compare runs in spite of conflicts.")] = False,
    form: Form = "rich",
    output: Output = None,
) -> None:
    """Compare finished runs, paired by seed and fold.

    Shows means, differences with confidence intervals, recall of each class, and cost.
    """
    from kdcore_compare.comparison import compare_sources
    from kdcore_compare.comparison_report import report_records, report_tables
    from kdcore_compare.tables import format_for, write_tables

    form = format_for(form, output)
    comparison = compare_sources(sources or [], experiment, uri, filter_string, metric or "", anyway)
    write_tables(report_tables(comparison), list(report_records(comparison)), form, output)


def seeds(
    recipe: Recipe,
    overrides: Overrides = None,
    jobs: Jobs = 1,
    executor: Where = "local",
    only: Annotated[str, typer.Option(help="Name of the recipe: train its seeds, and print no table.")] = "",
    metric: Metric = None,
    form: Form = "rich",
    output: Output = None,
) -> None:
    """Train the seeds of a recipe in parallel, and compare the student with its baseline.

    Each seed that a free job trains is a run of its own. Finished runs are reused and interrupted ones are resumed.
    """
    from kdcore_compare.parallel import Parallel
    from kdcore_compare.seeds import train_seeds

    train_seeds(recipe, overrides or [], Parallel(jobs, executor), only, metric or "", form, output)


def ablate(
    recipe: Recipe,
    overrides: Overrides = None,
    jobs: Jobs = 1,
    executor: Where = "local",
    only: Annotated[str, typer.Option(help="Train only this variant; print no table.")] = "",
    metric: Metric = None,
    form: Form = "rich",
    output: Output = None,
) -> None:
    """Train a recipe without each of its parts in turn, and show what each part adds.

    Finished runs are reused and interrupted ones are resumed.
    """
    from kdcore_compare.ablation import ablate as start
    from kdcore_compare.parallel import Parallel

    start(recipe, overrides or [], Parallel(jobs, executor), only, metric or "", form, output)


def compare_methods(
    recipe: Recipe,
    overrides: Overrides = None,
    losses: Annotated[
        list[str] | None,
        typer.Option(help="Compare this loss with default options, too; repeat, or 'all' for every one."),
    ] = None,
    grid: Annotated[str, typer.Option(help="Factors of each term's own weight, as number,number,…")] = "0.1,1,10",
    choose: Annotated[
        list[str] | None,
        typer.Option(help="Override for the weight-selection runs only, such as data.protocol.validation_subjects=[1]."),
    ] = None,
    jobs: Jobs = 1,
    executor: Where = "local",
    only: Annotated[str, typer.Option(help="Train only this variant; print no table.")] = "",
    metric: Metric = None,
    form: Form = "rich",
    output: Output = None,
) -> None:
    """Train the same student with one distillation loss after the other, and show what each gains.

    Each loss stands alone beside the terms of the baseline. Its weight is chosen on the validation split, without test
    samples. Teachers are trained once. Finished runs are reused and interrupted ones are resumed.
    """
    from kdcore_compare.compare_methods import compare_methods as start
    from kdcore_compare.methods import parse_grid
    from kdcore_compare.parallel import Parallel

    start(
        recipe,
        overrides or [],
        losses or [],
        parse_grid(grid),
        choose or [],
        Parallel(jobs, executor),
        only,
        metric or "",
        form,
        output,
    )


def cross_validate(
    recipe: Recipe,
    overrides: Overrides = None,
    folds: Annotated[
        int, typer.Option(min=0, help="Number of groups of subjects. By default, one subject is left out at a time.")
    ] = 0,
    repeats: Annotated[
        int, typer.Option(min=1, help="Divide the subjects into folds this many times, in random order; requires --folds.")
    ] = 1,
    stratified: Annotated[
        bool, typer.Option("--stratified", help="Give every fold similar shares of the classes; requires --folds.")
    ] = False,
    lists: Annotated[
        list[Path] | None,
        typer.Option("--list", help="Test on the subjects or samples in this file, one a line; repeat for every fold."),
    ] = None,
    jobs: Jobs = 1,
    executor: Where = "local",
    only: Annotated[str, typer.Option(help="Train only this fold; print no tables.")] = "",
    metric: Metric = None,
    form: Form = "rich",
    output: Output = None,
) -> None:
    """Cross-validate a recipe over its subjects, and compare the student with its baseline, paired by fold.

    Shows the mean and spread over folds, the accuracy of each subject, and the pooled confusion. The folds replace the recipe's
    protocol. Finished folds are reused and interrupted ones are resumed.
    """
    from kdcore_compare.cross_validation import cross_validate as start
    from kdcore_compare.folds import Division
    from kdcore_compare.parallel import Parallel

    start(
        recipe,
        overrides or [],
        Division(folds, repeats, stratified, tuple(lists or ())),
        Parallel(jobs, executor),
        only,
        metric or "",
        form,
        output,
    )


def sweep(
    recipe: Recipe,
    overrides: Overrides = None,
    grid: Annotated[
        list[str] | None, typer.Option(help="Values of a key, as key=value,value,…; repeat for every combination.")
    ] = None,
    search: Annotated[int, typer.Option(min=0, help="Let Optuna choose this many points instead of the full grid.")] = 0,
    ranges: Annotated[
        list[str] | None, typer.Option("--range", help="Range of a key, as key=low:high[:log][:int]; requires --search.")
    ] = None,
    storage: Annotated[str, typer.Option(help="Database URL; by default sweeps.db in the folder of runs.")] = "",
    study: Annotated[str, typer.Option(help="Name in the database; by default derived from recipe and keys.")] = "",
    prune: Annotated[bool, typer.Option(help="Stop points of a search that fall behind on the validation split.")] = True,
    jobs: Jobs = 1,
    executor: Where = "local",
    form: Form = "rich",
    output: Output = None,
) -> None:
    """Train a recipe with different values, and rank them by accuracy (or mAP, MAE, R²) on the validation split.

    Test samples are never used. Run the same command again, on this machine or another, to resume a sweep or to add a worker.
    """
    from kdcore_compare.parallel import Parallel
    from kdcore_compare.sweep import sweep as start

    start(
        recipe, overrides or [], grid or [], search, ranges or [], storage, study, prune, Parallel(jobs, executor), form, output
    )


def reproduce(
    run_id: Annotated[str, typer.Argument(help="Id or folder of a finished run, or its MLflow run id.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Overrides for this machine: data.dataset.root=…")] = None,
    uri: Uri = None,
) -> None:
    """Run the recipe of a run again, and report which results differ.

    The exit status is 1 unless all predictions are bit-identical.
    """
    from kdcore_compare.reproduce import reproduce as start

    if not start(run_id, overrides or [], uri):
        raise typer.Exit(1)
