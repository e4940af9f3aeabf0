"""Commands that inspect recordings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdcore.cli.arguments import Overrides, RecipeArgument

if TYPE_CHECKING:
    from kdcore.contracts.drawing import Drawing
    from kdcore.data.check import DataReport

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Inspect recordings before training on them.")


@app.command("check")
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
    from kdcore.cli.pictures import draw, refuse_path
    from kdcore.data.check import check

    refuse_path("--pictures", pictures)
    report = check(recipe, overrides or [], examples=pictures is not None)
    _show(report)
    if pictures:
        print(draw(f"{report.dataset}: one training recording per class", _drawings(report), pictures))
    if report.broken or report.leaks or report.windowless:
        raise typer.Exit(1)


def _drawings(report: DataReport) -> list[Drawing]:
    from kdcore.contracts.drawing import Drawing

    return [
        Drawing(modality, f"{name}: {key}, {len(signal)} samples, {signal.duration:.2f} s", report.modalities[modality], signal)
        for modality, examples in report.examples.items()
        for name, (key, signal) in sorted(examples.items())
    ]


def _show(report: DataReport) -> None:
    """Print the counts, lengths and problems of a dataset."""
    from rich.table import Table

    from kdcore.cli.tables import output, show_table

    console = output()
    console.print(f"{report.dataset}: {sum(report.splits.values())} samples; {report.rule}", highlight=False)
    splits = list(report.splits)
    kind = {"classes": "class", "labels": "label", "values": "samples"}[report.target.kind]
    for title, counts in ((kind, report.classes), ("subject", report.subjects)):
        table = Table(title, *splits)
        for name, count in counts.items():
            table.add_row(name, *(str(count[split]) for split in splits))
        show_table(console, table)
    ranges = {**report.values, **({"sample weight": report.weights} if report.weights else {})}
    if ranges:
        table = Table("value" if report.values else "", *splits, title="Minimum to maximum (mean)")
        for name, spans in ranges.items():
            table.add_row(name, *(_span(spans.get(split)) for split in splits))
        show_table(console, table)
    lengths = Table("modality", "shortest", "median", "longest", title="Length in samples (seconds)")
    for modality, spread in report.lengths.items():
        lengths.add_row(modality, *(f"{n:g} ({s:.2f})" for n, s in zip(spread, report.durations[modality], strict=True)))
    show_table(console, lengths)
    lists = {"missing": report.missing, "broken": report.broken, "leaks": report.leaks}
    if report.windows is not None:
        window_counts = ", ".join(f"{split} {report.windows[split]}" for split in splits)
        console.print(f"windows: {window_counts}", style="red" if report.windowless else "", highlight=False)
        lists["shorter than a window"] = report.short
    if report.left_out:
        lists["left out at random"] = report.left_out
    lists |= {"warnings": report.warnings, "unusual signals": report.odd, "dropped, by reason": report.dropped.lines()}
    lists["value ranges"] = [
        f"{modality}, subject {subject}: {low:.4g} to {high:.4g}, typically {typical:.4g}"
        for modality, subjects in report.ranges.items()
        for subject, (low, typical, high) in subjects.items()
    ]
    for title, lines in lists.items():
        console.print(f"{title}: {len(lines)}", style="red" if lines and title in ("broken", "leaks") else "", highlight=False)
        for line in lines[:20]:
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=not console.is_terminal)


def _span(numbers: tuple[float, float, float] | None) -> str:
    """Format a minimum, mean and maximum as ``min to max (mean)``."""
    return "" if numbers is None else f"{numbers[0]:.4g} to {numbers[2]:.4g} ({numbers[1]:.4g})"
