"""Command-line interface of the plugin. Each command imports its implementation when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Recipe = Annotated[str, typer.Argument(help="Path to a recipe, or the name of a shipped recipe.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Recipe overrides as key=value.")]
Form = Annotated[
    Literal["rich", "markdown", "csv", "latex", "html"],
    typer.Option("--format", help="Output format. rich is for terminals; csv has one value per line, as fractions."),
]
OutputPath = Annotated[
    Path | None, typer.Option("--output", "-o", help="Output file. Its suffix determines the format unless --format is set.")
]
Metric = Annotated[
    Literal["accuracy", "macro_f1", "loss", "map", "micro_f1", "subset_accuracy", "mae", "rmse", "r2"] | None,
    typer.Option(help="Metric to compare. Default: accuracy, or the primary metric of the dataset's target."),
]
Uri = Annotated[str | None, typer.Option(help="MLflow tracking URI. Default: the one that runs are tracked to.")]
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
    anyway: Annotated[bool, typer.Option("--anyway", help="Compare runs despite conflicts.")] = False,
    form: Form = "rich",
    output: OutputPath = None,
) -> None:
    """Compare finished runs, paired by seed and fold.

    Shows means, differences with confidence intervals, recall of each class, and cost.
    """
    from kdcore_compare.comparison import compare_sources
    from kdcore_compare.comparison_report import report_records, report_tables
    from kdcore_compare.tables import Output

    to = Output(form, output)
    comparison = compare_sources(sources or [], experiment, uri, filter_string, metric or "", anyway)
    to.write(report_tables(comparison), list(report_records(comparison)))


def seeds(
    recipe: Recipe,
    overrides: Overrides = None,
    jobs: Jobs = 1,
    executor: Where = "local",
    only: Annotated[str, typer.Option(help="Name of the recipe: train its seeds without printing a table.")] = "",
    metric: Metric = None,
    form: Form = "rich",
    output: OutputPath = None,
) -> None:
    """Train the seeds of a recipe in parallel.

    Then compare the student with its baseline. Each seed that a free job trains is a run of its own. Finished runs are
    reused and interrupted ones are resumed.
    """
    from kdcore_compare.parallel import Parallel
    from kdcore_compare.seeds import train_seeds
    from kdcore_compare.tables import Output

    train_seeds(recipe, overrides or [], Parallel(jobs, executor), only, metric or "", Output(form, output))


def ablate(
    recipe: Recipe,
    overrides: Overrides = None,
    jobs: Jobs = 1,
    executor: Where = "local",
    only: Annotated[str, typer.Option(help="Train only this variant, without printing a table.")] = "",
    metric: Metric = None,
    form: Form = "rich",
    output: OutputPath = None,
) -> None:
    """Train a recipe without each of its parts in turn.

    Shows what each part adds. Finished runs are reused and interrupted ones are resumed.
    """
    from kdcore_compare.ablation import ablate as start
    from kdcore_compare.parallel import Parallel
    from kdcore_compare.tables import Output

    start(recipe, overrides or [], Parallel(jobs, executor), only, metric or "", Output(form, output))


def compare_methods(
    recipe: Recipe,
    overrides: Overrides = None,
    losses: Annotated[
        list[str] | None,
        typer.Option(help="Also compare this loss with default options; can be repeated; 'all' for all losses."),
    ] = None,
    grid: Annotated[str, typer.Option(help="Factors for the weight of each term, as number,number,…")] = "0.1,1,10",
    choose: Annotated[
        list[str] | None,
        typer.Option(help="Override for weight-selection runs only, e.g. data.protocol.validation_subjects=[1]."),
    ] = None,
    jobs: Jobs = 1,
    executor: Where = "local",
    only: Annotated[str, typer.Option(help="Train only this variant, without printing a table.")] = "",
    metric: Metric = None,
    form: Form = "rich",
    output: OutputPath = None,
) -> None:
    """Compare distillation losses on the same student.

    Trains the student with one loss at a time, and shows the gain of each. Each loss is added to the terms of the
    baseline. Its weight is chosen on the validation split, without test samples. Teachers are trained once. Finished
    runs are reused and interrupted ones are resumed.
    """
    from kdcore_compare.compare_methods import compare_methods as start
    from kdcore_compare.methods import parse_grid
    from kdcore_compare.parallel import Parallel
    from kdcore_compare.tables import Output

    parallel, factors = Parallel(jobs, executor), parse_grid(grid)
    to = Output(form, output)
    start(recipe, overrides or [], losses or [], factors, choose or [], parallel, only, metric or "", to)


def cross_validate(
    recipe: Recipe,
    overrides: Overrides = None,
    folds: Annotated[
        int, typer.Option(min=0, help="Number of groups of subjects. Default: leave one subject out at a time.")
    ] = 0,
    repeats: Annotated[
        int, typer.Option(min=1, help="Number of times to divide the subjects into folds, in random order; requires --folds.")
    ] = 1,
    stratified: Annotated[
        bool, typer.Option("--stratified", help="Give all folds similar class distributions; requires --folds.")
    ] = False,
    lists: Annotated[
        list[Path] | None,
        typer.Option("--list", help="File with the test subjects or samples of a fold, one per line; repeat for each fold."),
    ] = None,
    jobs: Jobs = 1,
    executor: Where = "local",
    only: Annotated[str, typer.Option(help="Train only this fold, without printing tables.")] = "",
    metric: Metric = None,
    form: Form = "rich",
    output: OutputPath = None,
) -> None:
    """Cross-validate a recipe over its subjects.

    Compares the student with its baseline, paired by fold. Shows the mean and spread over folds, the accuracy of each
    subject, and the pooled confusion. The folds replace the recipe's protocol. Finished folds are reused and
    interrupted ones are resumed.
    """
    from kdcore_compare.cross_validation import cross_validate as start
    from kdcore_compare.folds import Division
    from kdcore_compare.parallel import Parallel
    from kdcore_compare.tables import Output

    division = Division(folds, repeats, stratified, tuple(lists or ()))
    start(recipe, overrides or [], division, Parallel(jobs, executor), only, metric or "", Output(form, output))


def sweep(
    recipe: Recipe,
    overrides: Overrides = None,
    grid: Annotated[
        list[str] | None, typer.Option(help="Values of a key, as key=value,value,…; can be repeated for all combinations.")
    ] = None,
    search: Annotated[int, typer.Option(min=0, help="Number of points that Optuna chooses, instead of the full grid.")] = 0,
    ranges: Annotated[
        list[str] | None, typer.Option("--range", help="Range of a key, as key=low:high[:log][:int]; requires --search.")
    ] = None,
    storage: Annotated[str, typer.Option(help="Database URL. Default: sweeps.db in the folder of runs.")] = "",
    study: Annotated[str, typer.Option(help="Name of the study in the database. Default: derived from recipe and keys.")] = "",
    prune: Annotated[
        bool, typer.Option(help="Stop points of a search early that perform poorly on the validation split.")
    ] = True,
    jobs: Jobs = 1,
    executor: Where = "local",
    form: Form = "rich",
    output: OutputPath = None,
) -> None:
    """Search for the best values of a recipe's keys.

    Ranks them by accuracy (or mAP, MAE, R²) on the validation split. Test samples are never used. Run the same command
    again, on this machine or another, to resume a sweep or to add a worker.
    """
    from kdcore_compare.parallel import Parallel
    from kdcore_compare.sweep import sweep as start
    from kdcore_compare.tables import Output

    parallel, to = Parallel(jobs, executor), Output(form, output)
    start(recipe, overrides or [], grid or [], search, ranges or [], storage, study, prune, parallel, to)


def reproduce(
    run_id: Annotated[str, typer.Argument(help="ID or folder of a finished run, or its MLflow run ID.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Overrides for this machine: data.dataset.root=…")] = None,
    uri: Uri = None,
) -> None:
    """Repeat a run, and report which results differ.

    The exit status is 1 unless all predictions are bit-identical.
    """
    from kdcore_compare.reproduce import reproduce as start

    if not start(run_id, overrides or [], uri):
        raise typer.Exit(1)
